// One transformer block. The standard one serves every family whose block is attention, then MLP, each with a residual;
// another shape (parallel attention, extra norms) is another function of this signature, named in its ArchSpec.
#pragma once
#include "nn/attention.h"
#include "nn/mlp.h"

namespace nibble::nn {

struct Block;
/// x [pass.rows, hidden] is replaced by the block's output.
using BlockForward = void (*)(const Block& block, float* x, const Pass& pass, Exec& exec);

void standard_block(const Block& block, float* x, const Pass& pass, Exec& exec);

struct Block {
  Norm attention_norm, mlp_norm;
  Attention attention;
  Mlp mlp;
  bool norm_first = true;  ///< false: each norm follows its residual sum (post-LayerNorm)
  BlockForward run = standard_block;

  void forward(float* x, const Pass& pass, Exec& exec) const { run(*this, x, pass, exec); }
};

}  // namespace nibble::nn
