#include "quant/common/values.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "quant/common/rounding.h"

namespace nibble {
namespace {

using rounding::bits_of;
using rounding::from_bits;

constexpr std::uint32_t kExponent = 0x7f800000U;

bool load_bf16(const void* from, float* to, std::int64_t count) {
  const auto* bytes = static_cast<const unsigned char*>(from);
  std::uint32_t bad = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes + 2 * i, sizeof half);
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    bad |= (bits & kExponent) == kExponent ? 1U : 0U;
    to[i] = from_bits(bits);
  }
  return bad == 0;
}

/// f16 magnitudes moved to f32's fields and multiplied by 2^112 give the value, subnormals included.
bool load_f16(const void* from, float* to, std::int64_t count) {
  const auto* bytes = static_cast<const unsigned char*>(from);
  std::uint32_t bad = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint16_t half = 0;
    std::memcpy(&half, bytes + 2 * i, sizeof half);
    const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffU) << 13;
    bad |= magnitude >= 0x0f800000U ? 1U : 0U;
    to[i] = from_bits(bits_of(from_bits(magnitude) * 0x1p112F) | static_cast<std::uint32_t>(half & 0x8000U) << 16);
  }
  return bad == 0;
}

bool load_f32(const void* from, float* to, std::int64_t count) {
  std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
  std::uint32_t bad = 0;
  for (std::int64_t i = 0; i < count; ++i) bad |= (bits_of(to[i]) & kExponent) == kExponent ? 1U : 0U;
  return bad == 0;
}

}  // namespace

bool load_finite(DType dtype, const void* from, float* to, std::int64_t count) {
  if (dtype == DType::bf16) return load_bf16(from, to, count);
  if (dtype == DType::f16) return load_f16(from, to, count);
  check(dtype == DType::f32, "load_finite: dtype");
  return load_f32(from, to, count);
}

float largest_magnitude(const float* values, std::int64_t count) {
  std::uint32_t largest = 0;  // bit patterns of magnitudes are ordered like the magnitudes
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, bits_of(values[i]) & 0x7fffffffU);
  return from_bits(largest);
}

Range range_of(const float* values, std::int64_t count) {
  constexpr std::int64_t kLanes = 16;
  std::array<float, kLanes> low, high;
  low.fill(values[0]);
  high.fill(values[0]);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      const float v = values[i + static_cast<std::int64_t>(j)];
      low[j] = v < low[j] ? v : low[j];
      high[j] = v > high[j] ? v : high[j];
    }
  }
  for (; i < count; ++i) {
    low[0] = std::min(low[0], values[i]);
    high[0] = std::max(high[0], values[i]);
  }
  return {*std::min_element(low.begin(), low.end()), *std::max_element(high.begin(), high.end())};
}

}  // namespace nibble
