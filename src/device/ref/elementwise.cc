// Activations, gated activations and residual addition.
#include <cmath>
#include <numbers>

#include "device/ref/ref.h"

namespace nibble::ref {

double activation(Activation act, double x) {
  switch (act) {
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
    case Activation::gelu_tanh: {
      const double root = std::sqrt(2 / std::numbers::pi);
      return 0.5 * x * (1 + std::tanh(root * (x + 0.044715 * x * x * x)));
    }
    case Activation::gelu_quick: return x / (1 + std::exp(-1.702 * x));
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::tanh: return std::tanh(x);
    case Activation::identity: return x;
  }
  return x;
}

void gated(Activation act, const float* gate, const float* up, std::int64_t count, float* y, Exec& exec) {
  exec.pool.run(count, 256, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = static_cast<float>(activation(act, gate[i]) * up[i]);
  });
}

void activate(Activation act, const float* x, std::int64_t count, float* y, Exec& exec) {
  exec.pool.run(count, 256, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) y[i] = static_cast<float>(activation(act, x[i]));
  });
}

void add(const float* x, std::int64_t count, float* y, Exec& exec) {
  exec.pool.run(count, 256, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) y[i] += x[i];
  });
}

const Ops& ops() {
  static constexpr Ops table{.rms_norm = &rms_norm,
                             .layer_norm = &layer_norm,
                             .rope = &rope,
                             .attention = &attention,
                             .gated = &gated,
                             .activate = &activate,
                             .add = &add};
  return table;
}

}  // namespace nibble::ref
