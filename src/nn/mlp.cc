#include "nn/mlp.h"

#include <array>

namespace nibble::nn {

void Mlp::forward(const float* x, std::int64_t rows, float* y, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const std::int64_t count = rows * up.outputs();
  float* inner = exec.arena.take<float>(count).data();
  if (exec.tap != nullptr && exec.tap->recall(down.name, inner, rows, up.outputs())) {
    down.forward(inner, rows, y, exec);
    return;
  }
  if (gate.weight.empty()) {
    up.forward(x, rows, inner, exec);
    exec.ops().activate(activation, inner, count, inner, exec);
    const auto width = static_cast<std::int64_t>(activation_scales.size());
    for (std::int64_t row = 0; width > 0 && row < rows; ++row) {
      for (std::int64_t i = 0; i < width; ++i) inner[row * width + i] /= activation_scales[static_cast<std::size_t>(i)];
    }
  } else {
    float* gated = exec.arena.take<float>(count).data();
    const std::array<LinearJob, 2> jobs{{{&gate, gated}, {&up, inner}}};
    forward_many(jobs, x, rows, exec);
    exec.ops().gated(activation, gated, inner, count, inner, exec);
  }
  down.forward(inner, rows, y, exec);
}

}  // namespace nibble::nn
