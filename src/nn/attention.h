// Multi-head attention with its projections: separate or fused q/k/v, grouped key/value heads, norms of q and k, rotary
// positions, sliding window.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/pass.h"

namespace nibble::nn {

/// How the outputs of one module for q, k and v lie.
enum class QkvOrder : std::uint8_t {
  blocks,  ///< q of all heads, then k, then v
  heads,   ///< q, k and v of the first head, then those of the next: [heads, 3, head_dim]; kv_heads = heads
};

struct Attention {
  Linear q, k, v;
  Linear qkv;  ///< instead of q, k, v
  QkvOrder qkv_order = QkvOrder::blocks;
  Linear o;             ///< output projection
  Norm q_norm, k_norm;  ///< over a head; size 0: none
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t layer = 0;           ///< in the cache
  float scale = 1;                  ///< of q . k
  std::vector<float> alibi_slopes;  ///< [heads], or empty
  std::int64_t sliding_window = 0;

  /// y = attention(x), both [pass.rows, hidden]; appends keys and values to the cache. Without one, attention goes both
  /// ways over the sequence's rows of this pass.
  void forward(const float* x, const Pass& pass, float* y, Exec& exec) const;

 private:
  /// The heads' outputs [pass.rows, heads, head_dim], which go into `o`.
  void mix(const float* x, const Pass& pass, float* mixed, Exec& exec) const;
};

}  // namespace nibble::nn
