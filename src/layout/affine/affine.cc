#include "layout/affine/affine.h"

#include <array>

#include "layout/affine/codes.h"
#include "layout/affine/kernels.h"
#include "layout/ref-inl.h"

namespace nibble::affine {
namespace {

constexpr std::string_view kParts[] = {"codes", "scale", "offset", "kind"};

/// Calls f(k, codes, count) for the blocks of a row.
template <class F>
void for_blocks(const QTensor& w, std::int64_t row, F&& f) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(w.part[0].data()) + row * row_bytes(w.cols, w.bits);
  std::array<std::uint8_t, kBlock> codes;
  for (std::int64_t k = 0; k < w.cols; k += kBlock) {
    const std::int64_t count = std::min(kBlock, w.cols - k);
    data = unpack_block(data, padded_cols(count), w.bits, codes.data());
    f(k, codes.data(), count);
  }
}

void decode_row(const QTensor& w, std::int64_t row, float* out) {
  const std::int64_t groups = groups_of(w.cols, w.group);
  const Offset kind = offset_kind(w);
  for_blocks(w, row, [&](std::int64_t k, const std::uint8_t* codes, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t group = row * groups + (k + i) / w.group;
      out[k + i] = value_of(w.dtype, kind, w.part[1].at(group), w.part[2].at(group), codes[i]);
    }
  });
}

void ref_matmul(const QTensor& w, const MatArgs& args, Exec& exec) { ref::matmul(w, args, exec, &decode_row); }
void ref_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  ref::decode(w, row0, rows, out, exec, &decode_row);
}

constexpr Kernels kRef{&ref_matmul, &ref_decode};

void check_plain(const Plain& p) {
  if (p.bits < 1 || p.bits > 8) throw bad_input("affine weight: ", p.bits, " bits (1 to 8 are supported)");
  if (p.rows < 0 || p.cols < 0) throw bad_input("affine weight: shape ", to_string({p.rows, p.cols}));
  if (p.group < 1) throw bad_input("affine weight: group of ", p.group);
  if (p.dtype != DType::f32 && p.dtype != DType::f16 && p.dtype != DType::bf16) {
    throw bad_input("affine weight: dtype ", name_of(p.dtype), " (f32, f16 and bf16 are supported)");
  }
  const auto codes = static_cast<std::size_t>(count_of({p.rows, p.cols}));
  const auto groups = static_cast<std::size_t>(count_of({p.rows, groups_of(p.cols, p.group)}));
  if (p.codes.size() != codes) throw bad_input("affine weight: ", p.codes.size(), " codes, expected ", codes);
  if (p.scale.size() != groups) throw bad_input("affine weight: ", p.scale.size(), " scales, expected ", groups);
  if (p.offset.size() != groups) throw bad_input("affine weight: ", p.offset.size(), " offsets, expected ", groups);
  const int limit = 1 << p.bits;
  for (const std::uint8_t code : p.codes) {
    if (code >= limit) throw bad_input("affine weight: code ", int{code}, " does not fit ", p.bits, " bits");
  }
}

}  // namespace

constexpr Layout kLayout{"affine", kParts, {&kRef, &kCpu}};

Offset offset_kind(const QTensor& w) { return static_cast<Offset>(w.part[3].data()[0]); }

QTensor pack(const Plain& plain, Exec& exec) {
  check_plain(plain);
  const std::int64_t groups = groups_of(plain.cols, plain.group), bytes = row_bytes(plain.cols, plain.bits);
  struct Parts {
    Tensor codes, scale, offset, kind;
  };
  auto parts = std::make_shared<Parts>(Parts{Tensor({plain.rows, bytes}, DType::u8), Tensor({plain.rows, groups}, plain.dtype),
                                             Tensor({plain.rows, groups}, plain.dtype), Tensor({1}, DType::u8)});
  convert_from_f32(plain.dtype, plain.scale.data(), parts->scale.data(), parts->scale.count());
  convert_from_f32(plain.dtype, plain.offset.data(), parts->offset.data(), parts->offset.count());
  parts->kind.data()[0] = static_cast<std::byte>(plain.offset_kind);
  std::uint8_t* out = reinterpret_cast<std::uint8_t*>(parts->codes.data());
  exec.pool.run(plain.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    std::array<std::uint8_t, kBlock> block;
    for (std::int64_t r = begin; r < end; ++r) {
      std::uint8_t* data = out + r * bytes;
      for (std::int64_t k = 0; k < plain.cols; k += kBlock) {
        const std::int64_t real = std::min(kBlock, plain.cols - k);
        block.fill(0);
        std::copy_n(plain.codes.data() + r * plain.cols + k, real, block.begin());
        data = pack_block(block.data(), padded_cols(real), plain.bits, data);
      }
    }
  });
  QTensor w;
  w.layout = &kLayout;
  w.rows = plain.rows;
  w.cols = plain.cols;
  w.bits = plain.bits;
  w.group = plain.group;
  w.dtype = plain.dtype;
  w.part = {parts->codes.view(), parts->scale.view(), parts->offset.view(), parts->kind.view()};
  w.owner = parts;
  return w;
}

Plain unpack(const QTensor& w, Exec& exec) {
  check(w.layout == &kLayout, "affine::unpack: another layout");
  Plain p{.rows = w.rows, .cols = w.cols, .group = w.group, .bits = w.bits, .offset_kind = offset_kind(w), .dtype = w.dtype,
          .codes = {}, .scale = w.part[1].to_f32(), .offset = w.part[2].to_f32()};
  p.codes.resize(static_cast<std::size_t>(w.rows * w.cols));
  exec.pool.run(w.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      for_blocks(w, r, [&](std::int64_t k, const std::uint8_t* codes, std::int64_t count) {
        std::copy_n(codes, count, p.codes.begin() + r * w.cols + k);
      });
    }
  });
  return p;
}

}  // namespace nibble::affine
