// affine: integer codes of 1 to 8 bits with a scale, and a shift or a zero point, per group of consecutive inputs of a
// row.
//
//   Offset::shift       value = round(round(scale * q) - shift)        Quanto int4 / int2, HQQ-like
//   Offset::zero_point  value = round(scale * (q - zero))              GPTQ, AWQ, Quanto with an integer shift
//
// where round() is rounding to QTensor::dtype. The last group of a row may be shorter. How codes lie in memory is
// private to this layout (kernels choose it); pack() and unpack() are the border.
//
//   part 0 codes   packed
//   part 1 scale   [rows, groups]  f32, f16 or bf16
//   part 2 offset  [rows, groups]  the same
//   part 3 kind    [1]             u8, an Offset
//   part 4 order   [cols] or none  i32: column j of codes, scales and groups is input order[j] (GPTQ's act-order).
//                                  Products gather x once; decode gives columns in input order.
#pragma once
#include <functional>
#include <vector>

#include "layout/layout.h"

namespace nibble::affine {

extern const Layout kLayout;

enum class Offset : std::uint8_t { shift, zero_point };

/// What w.part[2] holds.
Offset offset_kind(const QTensor& w);

/// Whether the columns lie in another order than the inputs.
inline bool has_order(const QTensor& w) { return !w.part[4].empty(); }

/// Groups of a row.
inline std::int64_t groups_of(std::int64_t cols, std::int64_t group) { return cols == 0 ? 0 : (cols - 1) / group + 1; }

/// The value of a code: the one definition that every kernel reproduces.
inline float value_of(DType dtype, Offset kind, float scale, float offset, std::uint8_t code) {
  const float q = code;
  if (kind == Offset::shift) return round_to(dtype, round_to(dtype, scale * q) - offset);
  return round_to(dtype, scale * (q - offset));
}

/// Everything of a weight but its codes.
struct Parts {
  std::int64_t rows = 0, cols = 0, group = 0;
  std::int32_t bits = 0;
  Offset offset_kind = Offset::shift;
  DType dtype = DType::f32;  ///< f32, f16 or bf16: of the values
  Tensor scale;              ///< [rows, groups] f32, f16 or bf16, kept as it is
  Tensor offset;             ///< like scale
  Tensor order;              ///< [cols] i32, a permutation; or empty
};

/// A block of codes on its way to or from a format: codes[r * kBlockCols + i] belongs to row row0 + r, column col0 + i.
struct CodeBlock {
  std::int64_t row0 = 0, rows = 0;  ///< row0 is a multiple of kBlockRows, rows <= kBlockRows
  std::int64_t col0 = 0, cols = 0;  ///< col0 is a multiple of kBlockCols, cols <= kBlockCols
  std::uint8_t* codes = nullptr;
};
inline constexpr std::int64_t kBlockRows = 64, kBlockCols = 128;

/// Packs without a plain copy of the matrix: `fill` writes each block's codes (each < 2^bits; it must not throw; all
/// threads call it). Throws as pack does.
QTensor pack_blocks(Parts parts, const std::function<void(const CodeBlock&)>& fill, Exec& exec);

/// The same for codes of 4 or 8 bits that a format keeps in 32-bit words down the inputs (8 or 4 to a word, the first
/// in the low bits): they are turned word by word, which is several times faster. `fill` writes, for a block of rows
/// and columns as above, words[w * kBlockRows + r]: the codes of columns col0 + w * (32 / bits) on of row row0 + r,
/// zeros beyond the last column. Throws as pack does.
struct WordBlock {
  std::int64_t row0 = 0, rows = 0;
  std::int64_t col0 = 0, cols = 0;
  std::uint32_t* words = nullptr;
};
QTensor pack_words(Parts parts, const std::function<void(const WordBlock&)>& fill, Exec& exec);

/// The inverse: gives every block once, columns in stored order.
void unpack_blocks(const QTensor& w, const std::function<void(const CodeBlock&)>& take, Exec& exec);

/// The plain form: what formats are read into and written from. groups = ceil(cols / group).
struct Plain {
  std::int64_t rows = 0, cols = 0, group = 0;
  std::int32_t bits = 0;
  Offset offset_kind = Offset::shift;
  DType dtype = DType::f32;           ///< f32, f16 or bf16: of scale and offset, and of the values
  std::vector<std::uint8_t> codes;    ///< [rows, cols], each < 2^bits
  std::vector<float> scale;           ///< [rows, groups], exactly representable in dtype
  std::vector<float> offset;          ///< [rows, groups], exactly representable in dtype
  std::vector<std::int32_t> order{};  ///< [cols] or empty: see part 4
};

/// Throws Error(bad_input) when sizes disagree, bits or group are out of range, or a code does not fit.
QTensor pack(const Plain& plain, Exec& exec);

/// The exact inverse of pack.
Plain unpack(const QTensor& w, Exec& exec);

}  // namespace nibble::affine
