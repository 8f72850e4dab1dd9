// The 4-bit grid of AWQ's weights: per group of inputs a scale and an integer zero point, chosen by the group's range.
// value = scale * (code - zero), code and zero in 0..15. Templates over an arithmetic, since AutoAWQ computes with
// float16 tensors, rounding after every operation.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>

#include "quant/common/rounding.h"

namespace nibble {

/// nibble's: f32, but the scale is rounded to f16, as it is stored; and 0 lies in the range of every group, so that one
/// whose values have one sign does not saturate.
struct AwqF32 {
  static float round(float value) { return value; }
  static float round_scale(float value) { return rounding::F16::round(value); }
  static constexpr bool has_zero = true;
};

/// AutoAWQ's on a float16 model: the range is that of the values alone.
struct AwqF16 {
  static float round(float value) { return rounding::F16::round(value); }
  static float round_scale(float value) { return rounding::F16::round(value); }
  static constexpr bool has_zero = false;
};

struct AwqGrid {
  float scale = 1, zero = 0;
};

struct AwqRange {
  float low = 0, high = 0;
};

/// Smallest and largest of `count` values, at least one.
inline AwqRange awq_range(const float* values, std::int64_t count) {
  constexpr std::int64_t kLanes = 16;  // independent ones, which compilers turn into vectors
  std::array<float, kLanes> low, high;
  low.fill(values[0]);
  high.fill(values[0]);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const auto lane = static_cast<std::size_t>(l);
      const float v = values[i + l];
      low[lane] = v < low[lane] ? v : low[lane];
      high[lane] = v > high[lane] ? v : high[lane];
    }
  }
  AwqRange range{*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
  for (; i < count; ++i) range = {std::min(range.low, values[i]), std::max(range.high, values[i])};
  return range;
}

/// The grid of values in a range. A scale beyond f16 is infinite.
template <class A>
AwqGrid awq_grid(AwqRange range) {
  if (A::has_zero) range = {std::min(range.low, 0.0F), std::max(range.high, 0.0F)};
  const float width = std::max(A::round(range.high - range.low), A::round(1e-5F));
  AwqGrid grid;
  grid.scale = A::round_scale(width / 15);
  grid.zero = std::clamp(-rounding::nearest_integer(A::round(range.low / grid.scale)), 0.0F, 15.0F);
  return grid;
}

/// The code of a value, 0 to 15. (Bounded before it is rounded to an integer: far values do not fit the fast rounding.)
template <class A>
float awq_code(float value, AwqGrid grid) {
  const float steps = std::clamp(A::round(value / grid.scale), -64.0F, 64.0F);
  return std::clamp(rounding::nearest_integer(steps) + grid.zero, 0.0F, 15.0F);
}

template <class A>
float awq_value(float code, AwqGrid grid) {
  return A::round((code - grid.zero) * grid.scale);
}

}  // namespace nibble
