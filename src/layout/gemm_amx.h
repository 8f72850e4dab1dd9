// Products of many tokens with AMX tiles: bf16 inputs, sums in f32.
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::amx {

/// Columns multiplied before sums go back to memory: two operands of 32 rows then share the first-level cache with the
/// sums.
inline constexpr std::int64_t kColumns = 256;
/// Rows of weights packed together; they are read again from second-level cache for every 32 tokens.
inline constexpr std::int64_t kPanel = 256;

inline std::int64_t padded_tokens(std::int64_t m) { return (m + 31) / 32 * 32; }
inline std::int64_t padded_columns(std::int64_t cols) { return (cols + 31) / 32 * 32; }
/// Bytes of all of x packed, and of one worker's scratch memory.
inline std::int64_t packed_bytes(std::int64_t m, std::int64_t cols) {
  return 2 * padded_tokens(m) * padded_columns(cols);
}
inline std::int64_t scratch_bytes(std::int64_t m) {
  return kPanel * kChunk * 2 + kChunk * 4 + kPanel * padded_tokens(m) * 4;
}

/// Packs tokens [token0, token0 + 16) of x [m, ldx], rounded to bf16, into `packed`.
void pack_tokens(const float* x, std::int64_t m, std::int64_t ldx, std::int64_t cols, std::int64_t token0,
                 std::byte* packed);

struct Job {
  const CpuRows* layout;
  const QTensor* w;
  const std::byte* x;  ///< packed
  std::int64_t m;
  float* y;
  std::int64_t ldy;
  const float* bias;
  std::byte* scratch;  ///< 64-byte aligned
};

/// Outputs of rows [row0, row1). A row's result depends neither on the range nor on m.
void matmul(const Job& job, std::int64_t row0, std::int64_t row1);

}  // namespace nibble::amx
