// A linear module: y = x W^T + bias, with the static activation quantization that some checkpoints carry.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "layout/layout.h"
#include "quant/scheme.h"

namespace nibble::nn {

struct LinearAdapter;

struct Linear {
  std::string name;         ///< the module's name in the checkpoint: what a Tap is told
  QTensor weight;           ///< [outputs, inputs]
  std::vector<float> bias;  ///< [outputs], or empty
  std::optional<ActivationQuant> activation;
  const LinearAdapter* adapter = nullptr;  ///< nn/adapters.h; null: none

  std::int64_t inputs() const { return weight.cols; }
  std::int64_t outputs() const { return weight.rows; }

  /// x is [m, inputs], y is [m, outputs], both contiguous f32.
  void forward(const float* x, std::int64_t m, float* y, Exec& exec) const;
};

/// Several linears of one input: the same result as one forward each, with fewer barriers.
struct LinearJob {
  const Linear* linear;
  float* y;
};
void forward_many(std::span<const LinearJob> jobs, const float* x, std::int64_t m, Exec& exec);

}  // namespace nibble::nn
