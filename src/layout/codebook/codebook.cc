#include "layout/codebook/codebook.h"

#include <atomic>
#include <bit>
#include <cstring>

#include "layout/codebook/codes.h"
#include "layout/codebook/kernels.h"
#include "layout/ref-inl.h"

namespace nibble::codebook {
namespace {

constexpr std::string_view kParts[] = {"codes", "codebooks", "scale"};

bool is_value(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

void ref_matmul(const QTensor& w, const MatArgs& args, Exec& exec) { ref::matmul(w, args, exec, &decode_row); }
void ref_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  ref::decode(w, row0, rows, out, exec, &decode_row);
}

constexpr Kernels kRef{&ref_matmul, &ref_decode};

/// The first code that no N-bit number is stored as; the number of codes when there is none.
std::int64_t find_bad_code(const View& codes, std::int32_t bits, Exec& exec) {
  std::atomic<std::int64_t> bad{codes.count()};
  with_code_type(codes.dtype(), [&](auto type) {
    using Code = decltype(type);
    const std::int64_t half = std::int64_t{1} << (bits - 1);
    if (static_cast<std::int64_t>(sizeof(Code)) * 8 <= bits) return;
    exec.pool.run(codes.count(), 4096, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t code = load_code<Code>(codes.data(), i);
        if (code < half && code >= -half) continue;
        for (std::int64_t first = bad; i < first && !bad.compare_exchange_weak(first, i);) {
        }
        return;
      }
    });
  });
  return bad;
}

void check_parts(const View& codes, const View& codebooks, const View& scale) {
  if (codes.rank() != 3 || (codes.dtype() != DType::i8 && codes.dtype() != DType::i16 && codes.dtype() != DType::i32)) {
    throw bad_input("codes: ", name_of(codes.dtype()), " ", to_string(codes.shape()),
                    ", expected i8, i16 or i32 [output groups, input groups, codebooks]");
  }
  if (codebooks.rank() != 4 || !is_value(codebooks.dtype())) {
    throw bad_input("codebooks: ", name_of(codebooks.dtype()), " ", to_string(codebooks.shape()),
                    ", expected floats [codebooks, entries, output group, input group]");
  }
  for (const std::int64_t dim : codebooks.shape()) {
    if (dim < 1) throw bad_input("codebooks: shape ", to_string(codebooks.shape()));
  }
  const auto entries = static_cast<std::uint64_t>(codebooks.dim(1));
  if (entries < 2 || !std::has_single_bit(entries) || entries > std::uint64_t{1} << kMaxBits) {
    throw bad_input("codebooks: ", entries, " entries, expected a power of two from 2 to 2^", kMaxBits);
  }
  if (codes.dim(2) != codebooks.dim(0)) {
    throw bad_input("codes: ", codes.dim(2), " codes per group for ", codebooks.dim(0), " codebooks");
  }
  if (scale.count() != codes.dim(0) || !is_value(scale.dtype())) {
    throw bad_input("scales: ", name_of(scale.dtype()), " ", to_string(scale.shape()), ", expected ", codes.dim(0),
                    " floats, one per group of outputs");
  }
  count_of({codes.dim(0), codebooks.dim(2), codes.dim(1), codebooks.dim(3)}, 4);
}

}  // namespace

constexpr Layout kLayout{"codebook", kParts, {&kRef, &kCpu}};

Shape4 shape_of(const QTensor& w) {
  const View& books = w.part[1];
  return {books.dim(0), books.dim(1), books.dim(2), books.dim(3)};
}

QTensor make(const View& codes, const View& codebooks, const View& scale, std::shared_ptr<const void> owner,
             Exec& exec) {
  check_parts(codes, codebooks, scale);
  const auto bits = static_cast<std::int32_t>(std::countr_zero(static_cast<std::uint64_t>(codebooks.dim(1))));
  if (static_cast<std::int32_t>(size_of(codes.dtype()) * 8) < bits) {
    throw bad_input("codes: ", name_of(codes.dtype()), " cannot hold ", bits, " bits");
  }
  const std::int64_t bad = find_bad_code(codes, bits, exec);
  if (bad < codes.count()) {
    throw bad_input("element ", bad, " is ", codes.at(bad), ", outside a codebook of ", codebooks.dim(1), " entries");
  }
  QTensor w;
  w.layout = &kLayout;
  w.rows = codes.dim(0) * codebooks.dim(2);
  w.cols = codes.dim(1) * codebooks.dim(3);
  w.bits = bits;
  w.group = codebooks.dim(3);
  w.dtype = DType::f32;
  w.part[0] = codes;
  w.part[1] = codebooks;
  w.part[2] = scale;
  w.owner = std::move(owner);
  return w;
}

void decode_row(const QTensor& w, std::int64_t row, float* out) {
  const Shape4 s = shape_of(w);
  const std::int64_t o = row / s.out_group, a = row % s.out_group, groups = w.cols / s.in_group;
  const float scale = w.part[2].at(o);
  const View& books = w.part[1];
  with_code_type(w.part[0].dtype(), [&](auto type) {
    using Code = decltype(type);
    for (std::int64_t j = 0; j < groups; ++j) {
      float* value = out + j * s.in_group;
      std::fill_n(value, s.in_group, 0.0F);
      for (std::int64_t k = 0; k < s.codebooks; ++k) {
        const std::int64_t code =
            load_code<Code>(w.part[0].data(), (o * groups + j) * s.codebooks + k) & (s.entries - 1);
        const std::int64_t entry = ((k * s.entries + code) * s.out_group + a) * s.in_group;
        for (std::int64_t b = 0; b < s.in_group; ++b) value[b] += load_as_f32(books.dtype(), books.data(), entry + b);
      }
      for (std::int64_t b = 0; b < s.in_group; ++b) value[b] *= scale;
    }
  });
}

}  // namespace nibble::codebook
