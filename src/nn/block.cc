#include "nn/block.h"

namespace nibble::nn {

void standard_block(const Block& block, float* x, const Pass& pass, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t count = pass.rows * block.attention_norm.size;
  float* normed = exec.arena.take<float>(count).data();
  float* out = exec.arena.take<float>(count).data();
  const auto residual = [&](const Norm& norm, const auto& inner) {
    const float* in = x;
    if (block.norm_first) {
      norm.forward(x, pass.rows, normed, exec);
      in = normed;
    }
    inner(in, out);
    exec.ops().add(out, count, x, exec);
    if (!block.norm_first) norm.forward(x, pass.rows, x, exec);
  };
  residual(block.attention_norm, [&](const float* in, float* to) { block.attention.forward(in, pass, to, exec); });
  residual(block.mlp_norm, [&](const float* in, float* to) { block.feed_forward(in, pass.rows, to, exec); });
}

void parallel_block(const Block& block, float* x, const Pass& pass, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t count = pass.rows * block.attention_norm.size;
  float* normed = exec.arena.take<float>(count).data();
  float* attended = exec.arena.take<float>(count).data();
  float* out = exec.arena.take<float>(count).data();
  block.attention_norm.forward(x, pass.rows, normed, exec);
  block.attention.forward(normed, pass, attended, exec);
  block.mlp_norm.forward(x, pass.rows, normed, exec);
  block.feed_forward(normed, pass.rows, out, exec);
  exec.ops().add(attended, count, out, exec);  // the order in which GPT-NeoX sums
  exec.ops().add(out, count, x, exec);
}

void normed_residual_block(const Block& block, float* x, const Pass& pass, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t count = pass.rows * block.attention_norm.size;
  float* out = exec.arena.take<float>(count).data();
  block.attention_norm.forward(x, pass.rows, x, exec);
  block.attention.forward(x, pass, out, exec);
  exec.ops().add(out, count, x, exec);
  block.mlp_norm.forward(x, pass.rows, x, exec);
  block.feed_forward(x, pass.rows, out, exec);
  exec.ops().add(out, count, x, exec);
}

}  // namespace nibble::nn
