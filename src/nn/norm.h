// RMSNorm and LayerNorm with their weights.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "device/device.h"

namespace nibble::nn {

enum class NormKind : std::uint8_t { rms, layer };

struct Norm {
  std::string name;  ///< the module's name in the checkpoint
  NormKind kind = NormKind::rms;
  float eps = 1e-5f;
  std::int64_t size = 0;      ///< width of a row
  std::vector<float> weight;  ///< [size], or empty (ones)
  std::vector<float> bias;    ///< [size], or empty (zeros)

  /// y = norm(x), both [rows, size]; y may be x.
  void forward(const float* x, std::int64_t rows, float* y, Exec& exec) const;
};

}  // namespace nibble::nn
