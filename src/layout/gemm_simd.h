// Products of many tokens in f32 vectors, for machines without tiles of bf16 (AMX): x is packed once with tokens side
// by side, so that a weight is loaded once for a whole vector of tokens and sums need no reduction.
//
//   packed x: [tokens / (3 vectors)][columns][3 vectors of tokens], zeros for the tokens that fill up the last vectors
//   weights:  [128 rows][512 columns], decoded by the layout, in second-level cache
//   sums:     [tokens / (3 vectors)][rows][3 vectors of tokens]
#pragma once
#include "layout/cpu_matmul.h"

namespace nibble::gemm {

/// From this many tokens on it is faster than products token by token.
inline constexpr std::int64_t kTokens = 24;
/// Rows of weights decoded together; x is read again from the outer caches for each such panel.
inline constexpr std::int64_t kPanel = 128;
/// Tokens are packed in groups of at most this many (three vectors of 16).
inline constexpr std::int64_t kMostTokens = 48;

inline std::int64_t padded_tokens(std::int64_t m) { return (m + kMostTokens - 1) / kMostTokens * kMostTokens; }
/// Floats of all of x packed, and of one worker's scratch memory.
inline std::int64_t packed_floats(std::int64_t m, std::int64_t cols) { return padded_tokens(m) * cols; }
inline std::int64_t scratch_floats(std::int64_t m) { return kPanel * kChunkStride + kPanel * padded_tokens(m); }

/// Groups of tokens that x of m tokens is packed in.
std::int64_t groups_of(std::int64_t m);

/// Packs group `group` of x [m, ldx], rounded to `compute`.
void pack(const MatArgs& args, std::int64_t cols, DType compute, std::int64_t group, float* packed);

struct Job {
  const CpuRows* layout;
  const QTensor* w;
  DType compute;
  const float* x;  ///< packed
  std::int64_t m;
  float* y;
  std::int64_t ldy;
  const float* bias;
  float* scratch;  ///< 64-byte aligned
};

/// Outputs of rows [row0, row1). A row's result depends neither on the range nor on m.
void matmul(const Job& job, std::int64_t row0, std::int64_t row1);

}  // namespace nibble::gemm
