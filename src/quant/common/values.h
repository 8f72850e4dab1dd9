// Reading rows of float weights into f32 for quantizers.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace nibble {

/// `count` values of f32, f16 or bf16 at `from` (any alignment) as f32; false when one of them is NaN or infinite.
bool load_finite(DType dtype, const void* from, float* to, std::int64_t count);

/// Largest magnitude of finite values; 0 for none.
float largest_magnitude(const float* values, std::int64_t count);

struct Range {
  float low = 0;
  float high = 0;
};

/// Smallest and largest of `count` >= 1 finite values.
Range range_of(const float* values, std::int64_t count);

}  // namespace nibble
