#include "nn/cross_block.h"

namespace nibble::nn {

void CrossBlock::forward(float* x, const Pass& pass, const KvCache& encoded, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const std::int64_t count = pass.rows * attention_norm.size;
  float* normed = exec.arena.take<float>(count).data();
  float* out = exec.arena.take<float>(count).data();
  attention_norm.forward(x, pass.rows, normed, exec);
  attention.forward(normed, pass, out, exec);
  exec.ops().add(out, count, x, exec);
  cross_norm.forward(x, pass.rows, normed, exec);
  cross.forward(normed, pass, encoded, out, exec);
  exec.ops().add(out, count, x, exec);
  mlp_norm.forward(x, pass.rows, normed, exec);
  mlp.forward(normed, pass.rows, out, exec);
  exec.ops().add(out, count, x, exec);
}

}  // namespace nibble::nn
