#include "quant/common/affine_codes.h"

#include "quant/common/rounding.h"
#include "quant/common/values.h"

namespace nibble {
namespace {

float or_zero(float value) { return value == value ? value : 0.0F; }

float clamp(float value, float low, float high) {
  const float bounded = value < low ? low : value;
  return bounded > high ? high : bounded;
}

float last_code(std::int32_t bits) { return static_cast<float>((1 << bits) - 1); }

/// Integers beyond this round to codes outside of any range just as it does.
constexpr float kFar = 4096;

}  // namespace

AffineGroup minmax_group(DType value, std::int32_t bits, const float* x, std::int64_t count) {
  const Range range = range_of(x, count);
  return {round_to(value, round_to(value, range.high - range.low) / last_code(bits)), -range.low};
}

float zero_point_of(DType value, std::int32_t bits, AffineGroup group) {
  const float quotient = or_zero(round_to(value, group.shift / group.scale));
  return rounding::nearest_integer(clamp(quotient, 0, last_code(bits)));
}

void encode_affine(DType value, std::int32_t bits, AffineGroup group, const float* x, std::int64_t count,
                   std::uint8_t* codes) {
  const float last = last_code(bits);
  rounding::with_rounding(value, [&]<class R>(R) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float code = or_zero(R::round(R::round(x[i] + group.shift) / group.scale));
      codes[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(rounding::nearest_integer(clamp(code, 0, last))));
    }
  });
}

void encode_zero_point(DType value, std::int32_t bits, float scale, float zero, const float* x, std::int64_t count,
                       std::uint8_t* codes) {
  const float last = last_code(bits);
  rounding::with_rounding(value, [&]<class R>(R) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float integer = rounding::nearest_integer(clamp(R::round(x[i] / scale), -kFar, kFar));
      const float code = clamp(or_zero(R::round(integer + zero)), 0, last);
      codes[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(code));
    }
  });
}

void decode_affine(DType value, AffineGroup group, const std::uint8_t* codes, std::int64_t count, float* x) {
  rounding::with_rounding(value, [&]<class R>(R) {
    for (std::int64_t i = 0; i < count; ++i) {
      x[i] = R::round(R::round(group.scale * static_cast<float>(codes[i])) - group.shift);
    }
  });
}

void decode_zero_point(DType value, float scale, float zero, const std::uint8_t* codes, std::int64_t count, float* x) {
  rounding::with_rounding(value, [&]<class R>(R) {
    for (std::int64_t i = 0; i < count; ++i) x[i] = R::round(scale * (static_cast<float>(codes[i]) - zero));
  });
}

}  // namespace nibble
