// lut4: 4-bit codes that index a table of 16 values, times one scale per block of consecutive weights. NF4 and FP4 of
// bitsandbytes (Dettmers et al. 2023, QLoRA), with or without nested ("double") quantization of the scales.
//
// Weights are numbered row by row, i = row * cols + col; blocks are `group` consecutive weights and do cross row ends:
//
//   weights   | block 0: i = 0 .. group-1        | block 1: i = group .. 2 group-1 | ... | last, may be short |
//   codes     | byte 0   byte 1   byte 2   ...                                                              |
//               q0<<4|q1 q2<<4|q3 q4<<4|q5        the first weight of a pair is the high nibble
//   scale     | scale[0]                         | scale[1]                        | ... |
//
//   value[i] = table[q[i]] * scale[i / group]                       one f32 product
//   scale[b] = scale[b]                                             plain: part 1 is f32
//            = nested_table[a[b]] * nested_scale[b / n] + offset    nested: part 1 is u8 a; both steps rounded to
//                                                                   Nested::dtype (f32 but for odd files)
//
// decode() rounds the value to QTensor::dtype, as the library's dequantize does. matmul rounds the f32 product to
// Exec::compute at once, as the library's forward does: with compute f32 the weights keep all their bits.
//
//   part 0 codes         any dtype: ceil(rows * cols / 2) bytes; in the file mapping
//   part 1 scale         [blocks]  f32, or u8 when nested
//   part 2 table         [16] f32
//   part 3 nested_scale  [ceil(blocks / n)] f32    | parts 3 to 5 are empty when
//   part 4 nested_table  [256] f32                 | scales are not nested
//   part 5 nested        a Nested                  |
#pragma once
#include <array>
#include <optional>

#include "layout/layout.h"

namespace nibble::lut4 {

extern const Layout kLayout;

/// NormalFloat4: quantiles of N(0, 1), as bitsandbytes has them.
inline constexpr std::array<float, 16> kNf4{
    -1.0F,      -0.6961928F, -0.52507305F, -0.39491749F, -0.28444138F, -0.18477343F, -0.091050036F, 0.0F,
    0.0795803F, 0.1609302F,  0.2461123F,   0.33791524F,  0.44070983F,  0.562617F,    0.72295684F,   1.0F};

/// Sign in bit 3, magnitudes {0, 1/16, 8, 12, 4, 6, 2, 3} / 12; code 8 is plain zero.
inline constexpr std::array<float, 16> kFp4{0.0F,       0.0625F / 12, 8.0F / 12,  1.0F,          4.0F / 12,  0.5F,
                                            2.0F / 12,  0.25F,        0.0F,       -0.0625F / 12, -8.0F / 12, -1.0F,
                                            -4.0F / 12, -0.5F,        -2.0F / 12, -0.25F};

/// How scales are quantized.
struct Nested {
  float offset = 0;
  std::int32_t block = 0;    ///< scales that share a nested scale
  DType dtype = DType::f32;  ///< f32, f16 or bf16: of the arithmetic that gives a scale
};

/// What a weight is made of. The table must outlive the weight (kNf4, kFp4); the rest lives as long as `owner`.
struct Source {
  std::int64_t rows = 0, cols = 0, block = 0;
  DType dtype = DType::f32;
  View codes;
  View scale;
  const std::array<float, 16>* table = nullptr;
  View nested_scale, nested_table;
  std::optional<Nested> nested;
  std::shared_ptr<const void> owner;
};

/// Checks all sizes and dtypes: Error(bad_input) that names the part.
QTensor make(const Source& source);

/// Blocks of the whole weight.
std::int64_t blocks_of(const QTensor& w);

/// The scale arithmetic of part 5, or none.
std::optional<Nested> nested_of(const QTensor& w);

/// The f32 scale of any block.
class Scales {
 public:
  explicit Scales(const QTensor& w);
  float operator()(std::int64_t block) const {
    if (nested_.block == 0) return f32_at(scale_, block);
    const std::int64_t outer = shift_ >= 0 ? block >> shift_ : block / nested_.block;
    const float product = f32_at(table_, static_cast<std::int64_t>(scale_[block])) * f32_at(outer_, outer);
    if (nested_.dtype == DType::f32) return product + nested_.offset;
    return round_to(nested_.dtype, round_to(nested_.dtype, product) + nested_.offset);
  }

 private:
  static float f32_at(const std::byte* from, std::int64_t index) {
    float value;
    __builtin_memcpy(&value, from + 4 * index, sizeof value);
    return value;
  }

  const std::byte *scale_, *outer_, *table_;
  Nested nested_;  ///< block 0: not nested
  int shift_ =
      -1;  ///< log2 of nested_.block, where it is a power of two: a division costs as much as a block of weights
};

/// Row `row` as f32 products, before any rounding.
void decode_row(const QTensor& w, std::int64_t row, float* out);

}  // namespace nibble::lut4
