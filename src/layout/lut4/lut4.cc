#include "layout/lut4/lut4.h"

#include <bit>
#include <cstring>

#include "layout/lut4/kernels.h"
#include "layout/ref-inl.h"

namespace nibble::lut4 {
namespace {

constexpr std::string_view kParts[] = {"codes", "scale", "table", "nested_scale", "nested_table", "nested"};

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a == 0 ? 0 : (a - 1) / b + 1; }

bool is_value(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

void decode_rounded(const QTensor& w, std::int64_t row, float* out) {
  decode_row(w, row, out);
  std::transform(out, out + w.cols, out, [&](float value) { return round_to(w.dtype, value); });
}

void ref_matmul(const QTensor& w, const MatArgs& args, Exec& exec) { ref::matmul(w, args, exec, &decode_row); }
void ref_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  ref::decode(w, row0, rows, out, exec, &decode_rounded);
}

constexpr Kernels kRef{&ref_matmul, &ref_decode};

void expect(const View& view, std::string_view part, DType dtype, std::int64_t count) {
  if (view.dtype() == dtype && view.count() == count) return;
  throw bad_input("lut4 ", part, ": ", name_of(view.dtype()), " ", to_string(view.shape()), ", expected ", count, " ",
                  name_of(dtype), " elements");
}

void check_source(const Source& s) {
  if (s.rows < 0 || s.cols < 0) throw bad_input("lut4 weight: shape ", to_string({s.rows, s.cols}));
  if (s.block < 1) throw bad_input("lut4 weight: blocks of ", s.block);
  if (!is_value(s.dtype))
    throw bad_input("lut4 weight: dtype ", name_of(s.dtype), " (f32, f16 and bf16 are supported)");
  check(s.table != nullptr, "lut4::make: no table");
  const std::int64_t count = count_of({s.rows, s.cols});
  const std::int64_t blocks = ceil_div(count, s.block);
  if (static_cast<std::int64_t>(s.codes.size_bytes()) != ceil_div(count, 2)) {
    throw bad_input("lut4 codes: ", s.codes.size_bytes(), " bytes, expected ", ceil_div(count, 2));
  }
  expect(s.scale, "scale", s.nested ? DType::u8 : DType::f32, blocks);
  if (!s.nested) return;
  if (s.nested->block < 1) throw bad_input("lut4 nested scale: blocks of ", s.nested->block);
  if (!is_value(s.nested->dtype)) throw bad_input("lut4 nested scale: dtype ", name_of(s.nested->dtype));
  expect(s.nested_scale, "nested scale", DType::f32, ceil_div(blocks, s.nested->block));
  expect(s.nested_table, "nested table", DType::f32, 256);
}

}  // namespace

constexpr Layout kLayout{"lut4", kParts, {&kRef, &kCpu}};

std::int64_t blocks_of(const QTensor& w) { return w.part[1].count(); }

std::optional<Nested> nested_of(const QTensor& w) {
  if (w.part[5].empty()) return std::nullopt;
  Nested nested;
  std::memcpy(&nested, w.part[5].data(), sizeof nested);
  return nested;
}

Scales::Scales(const QTensor& w)
    : scale_(w.part[1].data()),
      outer_(w.part[3].data()),
      table_(w.part[4].data()),
      nested_(nested_of(w).value_or(Nested{})) {
  const auto block = static_cast<std::uint32_t>(nested_.block);
  if (std::has_single_bit(block)) shift_ = std::countr_zero(block);
}

void decode_row(const QTensor& w, std::int64_t row, float* out) {
  std::array<float, 16> table;
  std::memcpy(table.data(), w.part[2].data(), sizeof table);
  const auto* codes = reinterpret_cast<const std::uint8_t*>(w.part[0].data());
  const Scales scales(w);
  const std::int64_t begin = row * w.cols, end = begin + w.cols;
  for (std::int64_t i = begin; i < end;) {
    const std::int64_t block = i / w.group, stop = std::min(end, (block + 1) * w.group);
    const float scale = scales(block);
    for (; i < stop; ++i) {
      const unsigned pair = codes[i / 2];
      *out++ = table[i % 2 == 0 ? pair >> 4 : pair & 15] * scale;
    }
  }
}

QTensor make(const Source& source) {
  check_source(source);
  QTensor w;
  w.layout = &kLayout;
  w.rows = source.rows;
  w.cols = source.cols;
  w.bits = 4;
  w.group = source.block;
  w.dtype = source.dtype;
  w.part[0] = source.codes;
  w.part[1] = source.scale;
  w.part[2] = View(source.table->data(), {16}, DType::f32);
  w.owner = source.owner;
  if (source.nested) {
    Tensor nested({static_cast<std::int64_t>(sizeof(Nested))}, DType::u8);
    std::memcpy(nested.data(), &*source.nested, sizeof(Nested));
    w.part[3] = source.nested_scale;
    w.part[4] = source.nested_table;
    w.part[5] = nested.view();
    w.owner = std::make_shared<std::pair<std::shared_ptr<const void>, Tensor>>(source.owner, nested);
  }
  return w;
}

}  // namespace nibble::lut4
