// One transformer block. The standard one serves every family whose block is attention, then MLP, each with a residual;
// another shape (parallel attention, extra norms) is another function of this signature, named in its ArchSpec.
#pragma once
#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/moe.h"

namespace nibble::nn {

struct Block;
/// x [pass.rows, hidden] is replaced by the block's output.
using BlockForward = void (*)(const Block& block, float* x, const Pass& pass, Exec& exec);

/// x = x + attention(norm(x)), then x = x + mlp(norm(x)); with norm_first false, x = norm(x + attention(x)), ...
void standard_block(const Block& block, float* x, const Pass& pass, Exec& exec);
/// GPT-NeoX (arXiv:2204.06745): x + attention(attention_norm(x)) + mlp(mlp_norm(x)).
void parallel_block(const Block& block, float* x, const Pass& pass, Exec& exec);
/// BLOOM with apply_residual_connection_post_layernorm: n = norm(x), x = n + attention(n), then the same with the MLP.
void normed_residual_block(const Block& block, float* x, const Pass& pass, Exec& exec);

struct Block {
  Norm attention_norm, mlp_norm;
  Attention attention;
  Mlp mlp;
  Moe moe;                 ///< in place of the MLP, when it has experts
  bool norm_first = true;  ///< false: each norm follows its residual sum (post-LayerNorm)
  BlockForward run = standard_block;

  void forward(float* x, const Pass& pass, Exec& exec) const { run(*this, x, pass, exec); }
  /// y = mlp(x) or the mixture of experts, both [rows, hidden].
  void feed_forward(const float* x, std::int64_t rows, float* y, Exec& exec) const {
    if (moe.experts.empty()) return mlp.forward(x, rows, y, exec);
    moe.forward(x, rows, y, exec);
  }
};

}  // namespace nibble::nn
