// RMSNorm (arXiv:1910.07467) and LayerNorm (arXiv:1607.06450).
#include <cmath>

#include "device/ref/ref.h"

namespace nibble::ref {

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t cols, float* y,
              Exec& exec) {
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* in = x + r * cols;
      float* out = y + r * cols;
      double squares = 0;
      for (std::int64_t c = 0; c < cols; ++c) squares += static_cast<double>(in[c]) * in[c];
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
      for (std::int64_t c = 0; c < cols; ++c) out[c] = static_cast<float>(in[c] * inverse * weight[c]);
    }
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows, std::int64_t cols,
                float* y, Exec& exec) {
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* in = x + r * cols;
      float* out = y + r * cols;
      double sum = 0, squares = 0;
      for (std::int64_t c = 0; c < cols; ++c) sum += in[c];
      const double mean = sum / static_cast<double>(cols);
      for (std::int64_t c = 0; c < cols; ++c) squares += (in[c] - mean) * (in[c] - mean);
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + eps);
      for (std::int64_t c = 0; c < cols; ++c) {
        const double normal = (in[c] - mean) * inverse;
        out[c] = static_cast<float>(normal * (weight != nullptr ? weight[c] : 1) + (bias != nullptr ? bias[c] : 0));
      }
    }
  });
}

}  // namespace nibble::ref
