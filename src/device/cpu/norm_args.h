// What a norm does to each row.
#pragma once
#include <cstdint>

namespace nibble::cpu {

struct NormArgs {
  const float *weight, *bias;  ///< [cols] or null
  float eps;
  std::int64_t cols;
};

}  // namespace nibble::cpu
