// The CPU driver of matrix products: what is common to all layouts. A layout supplies CpuRows.
#pragma once
#include "device/cpu/isa.h"
#include "layout/layout.h"

namespace nibble {

/// Inputs per chunk in which rows are decoded: small enough that a block of rows stays in the first-level cache.
inline constexpr std::int64_t kChunk = 512;
/// Distance of decoded rows: not a divisor of 4096 bytes, or loads would wait for stores to other rows that look alike
/// to the core.
inline constexpr std::int64_t kChunkStride = kChunk + 16;
/// Rows decoded together.
inline constexpr std::int64_t kRowBlock = 8;
/// Rows of x and of decoded chunks are padded with zeros to a multiple of this.
inline constexpr std::int64_t kPad = 64;

inline std::int64_t padded(std::int64_t cols) { return (cols + kPad - 1) / kPad * kPad; }

/// A product with x already rounded to the arithmetic's type.
struct RowsJob {
  const QTensor* w = nullptr;
  const float* x = nullptr;  ///< [m, ldx], zero between cols and padded(cols)
  std::int64_t m = 0, ldx = 0;
  float* y = nullptr;
  std::int64_t ldy = 0;
  const float* bias = nullptr;
  DType compute = DType::f32;
  float* scratch = nullptr;  ///< scratch_floats(m)
};

inline std::int64_t scratch_floats(std::int64_t m) { return kRowBlock * kChunkStride + kRowBlock * m * 16; }

/// A layout on the CPU.
struct CpuRows {
  /// Outputs of rows [row0, row1). The result of a row depends neither on the range nor on m.
  void (*matmul)(const RowsJob& job, std::int64_t row0, std::int64_t row1) = nullptr;
  /// Columns [k0, k0 + count) of `row` (k0 a multiple of kChunk) as the factors of a product in `compute`: the row's
  /// outputs are the sums of these times row_scale. Zeros follow up to padded(count).
  void (*factors)(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count,
                  float* out) = nullptr;
  float (*row_scale)(const QTensor& w, std::int64_t row) = nullptr;
  /// Exact values of a whole row.
  void (*values)(const QTensor& w, std::int64_t row, float* out) = nullptr;
  /// Where columns from k0 on lie as bf16 (any alignment), or null when they do not.
  const std::byte* (*bf16)(const QTensor& w, std::int64_t row, std::int64_t k0) = nullptr;
};

/// out[0, count) = in rounded to dtype, zeros up to `padded_count`.
void round_row(DType dtype, const float* in, std::int64_t count, float* out, std::int64_t padded_count);

/// y = x W^T + bias on the given instruction set (one that this machine has).
void cpu_matmul(const CpuRows& rows, CpuIsa isa, const QTensor& w, const MatArgs& args, Exec& exec);

/// Exact values of rows [row0, row0 + rows).
void cpu_decode(const CpuRows& layout, const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec);

}  // namespace nibble
