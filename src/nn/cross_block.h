// A block of an encoder-decoder's decoder: attention to itself, attention to the encoder's output, MLP, each on a norm
// of its input and added to it (T5).
#pragma once
#include "nn/attention.h"
#include "nn/cross_attention.h"
#include "nn/mlp.h"

namespace nibble::nn {

struct CrossBlock {
  Norm attention_norm, cross_norm, mlp_norm;
  Attention attention;
  CrossAttention cross;
  Mlp mlp;

  /// x [pass.rows, hidden] is replaced by the block's output; `encoded` holds the keys and values of the encoder's.
  void forward(float* x, const Pass& pass, const KvCache& encoded, Exec& exec) const;
};

}  // namespace nibble::nn
