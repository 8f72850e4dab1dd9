// Attention of a decoder to an encoder's output, whose keys and values are computed once per sequence.
#pragma once
#include <cstdint>

#include "nn/linear.h"
#include "nn/pass.h"

namespace nibble::nn {

struct CrossAttention {
  Linear q, k, v, o;
  std::int64_t heads = 0, head_dim = 0;
  std::int64_t layer = 0;  ///< in the cache
  float scale = 1;         ///< of q . k

  /// Stores keys and values of `encoded` [rows, hidden] at the front of `sequence`, where room is reserved.
  void remember(const float* encoded, std::int64_t rows, std::int64_t sequence, KvCache& cache, Exec& exec) const;

  /// y = attention of x to all that `cache` holds of each sequence of the pass, both [pass.rows, hidden].
  void forward(const float* x, const Pass& pass, const KvCache& cache, float* y, Exec& exec) const;
};

}  // namespace nibble::nn
