#include "quant/common/symmetric.h"

#include <array>

#include "quant/common/rounding.h"
#include "quant/common/values.h"

namespace nibble {
namespace {

using rounding::bits_of;
using rounding::from_bits;

/// 0 / 0, the quotient of a zero row, is stored as 0.
float or_zero(float value) { return value == value ? value : 0.0F; }

float clamp(float value, float low, float high) {
  const float bounded = value < low ? low : value;
  return bounded > high ? high : bounded;
}

struct Int8 {
  static std::byte encode(float value) {
    return static_cast<std::byte>(static_cast<std::int32_t>(rounding::nearest_integer(clamp(value, -128, 127))));
  }
};

/// A float8 format with `Mantissa` stored bits and exponent bias `Bias`; `Largest` is its largest finite value.
template <int Mantissa, int Bias, int Largest, bool NegativeZero>
struct Float8 {
  static std::byte encode(float value) {
    const std::uint32_t magnitude = bits_of(clamp(value, -Largest, Largest)) & 0x7fffffffU;
    constexpr int kShift = 23 - Mantissa;
    const std::uint32_t normal = (magnitude + ((1U << (kShift - 1)) - 1) + (magnitude >> kShift & 1U)) >> kShift;
    // Below the smallest normal number codes count multiples of 2^(1 - Bias - Mantissa).
    constexpr float kMagic = power_of_two(1 - Bias - Mantissa + 23);
    const std::uint32_t tiny = bits_of(from_bits(magnitude) + kMagic) - bits_of(kMagic);
    constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(127 + 1 - Bias) << 23;
    const std::uint32_t code =
        magnitude < kSmallestNormal ? tiny : normal - (static_cast<std::uint32_t>(127 - Bias) << Mantissa);
    const std::uint32_t sign = bits_of(value) >> 24 & 0x80U;
    return static_cast<std::byte>(!NegativeZero && code == 0 ? 0 : sign | code);
  }

 private:
  static constexpr float power_of_two(int exponent) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(127 + exponent) << 23);
  }
};

/// Calls f(Code{}) for the code type.
template <class F>
void with_code(DType code, F&& f) {
  switch (code) {
    case DType::f8_e4m3fn: return f(Float8<3, 7, 448, true>{});
    case DType::f8_e5m2: return f(Float8<2, 15, 57344, true>{});
    case DType::f8_e4m3fnuz: return f(Float8<3, 8, 240, false>{});
    default: check(code == DType::i8, "symmetric: code type"); return f(Int8{});
  }
}

template <class Scale>
void encode(DType value, DType code, const float* x, std::int64_t count, Scale scale, std::byte* codes) {
  rounding::with_rounding(value, [&]<class R>(R) {
    with_code(code, [&]<class C>(C) {
      for (std::int64_t i = 0; i < count; ++i) codes[i] = C::encode(or_zero(R::round(x[i] / scale(i))));
    });
  });
}

std::array<float, 256> code_values(DType code) {
  std::array<float, 256> table;
  for (int i = 0; i < 256; ++i) {
    const auto byte = static_cast<std::uint8_t>(i);
    table[static_cast<std::size_t>(i)] = load_as_f32(code, &byte, 0);
  }
  return table;
}

}  // namespace

float largest_code(DType code) {
  switch (code) {
    case DType::f8_e4m3fn: return 448;
    case DType::f8_e5m2: return 57344;
    case DType::f8_e4m3fnuz: return 240;
    default: check(code == DType::i8, "largest_code: code type"); return 127;
  }
}

float absmax_scale(DType value, DType code, const float* x, std::int64_t count) {
  return round_to(value, largest_magnitude(x, count) / largest_code(code));
}

void encode_symmetric(DType value, DType code, const float* x, std::int64_t count, float scale, std::byte* codes) {
  encode(
      value, code, x, count, [scale](std::int64_t) { return scale; }, codes);
}

void encode_symmetric(DType value, DType code, const float* x, std::int64_t count, const float* scales,
                      std::byte* codes) {
  encode(
      value, code, x, count, [scales](std::int64_t i) { return scales[i]; }, codes);
}

void decode_symmetric(DType value, DType code, const std::byte* codes, std::int64_t count, float scale, float* x) {
  rounding::with_rounding(value, [&]<class R>(R) {
    if (code == DType::i8) {
      for (std::int64_t i = 0; i < count; ++i)
        x[i] = R::round(scale * static_cast<float>(static_cast<std::int8_t>(codes[i])));
      return;
    }
    const std::array<float, 256> table = code_values(code);
    for (std::int64_t i = 0; i < count; ++i) x[i] = R::round(scale * table[static_cast<std::uint8_t>(codes[i])]);
  });
}

}  // namespace nibble
