#include "nn/norm.h"

namespace nibble::nn {

void Norm::forward(const float* x, std::int64_t rows, float* y, Exec& exec) const {
  const float* w = weight.empty() ? nullptr : weight.data();
  if (kind == NormKind::rms) {
    exec.ops().rms_norm(x, w, eps, rows, size, y, exec);
  } else {
    exec.ops().layer_norm(x, w, bias.empty() ? nullptr : bias.data(), eps, rows, size, y, exec);
  }
}

}  // namespace nibble::nn
