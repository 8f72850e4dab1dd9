// Rounding of f32 values to a storage dtype as branch-free code that compilers vectorise. PyTorch computes elementwise
// operations on bf16 and f16 tensors in f32 and rounds each result; algorithms that must give its bits are templates
// over one of these structs and call round() after every operation.
#pragma once
#include <bit>
#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"

namespace nibble::rounding {

inline std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
inline float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

struct F32 {
  static float round(float value) { return value; }
};

/// To the nearest bf16, ties to even; NaN stays NaN.
struct Bf16 {
  static float round(float value) {
    const std::uint32_t bits = bits_of(value);
    const float rounded = from_bits((bits + 0x7fffU + (bits >> 16 & 1U)) & 0xffff0000U);
    return value == value ? rounded : value;
  }
};

/// To the nearest f16, ties to even, overflow to infinity; NaN stays NaN.
struct F16 {
  static float round(float value) {
    const std::uint32_t sign = bits_of(value) & 0x80000000U, magnitude = bits_of(value) & 0x7fffffffU;
    const std::uint32_t normal = (magnitude + 0xfffU + (magnitude >> 13 & 1U)) & 0xffffe000U;
    const std::uint32_t bounded = normal >= 0x47800000U ? 0x7f800000U : normal;  // 2^16 and above: infinity
    // Below 2^-14 the spacing is 2^-24: that of f32 numbers near 1/2.
    const std::uint32_t tiny = bits_of((from_bits(magnitude) + 0.5F) - 0.5F);
    const std::uint32_t rounded = magnitude < 0x38800000U ? tiny : bounded;
    return value == value ? from_bits(sign | rounded) : value;
  }
};

/// Calls f(Rounding{}) for the struct of a dtype (f32, f16 or bf16).
template <class F>
decltype(auto) with_rounding(DType dtype, F&& f) {
  switch (dtype) {
    case DType::bf16: return f(Bf16{});
    case DType::f16: return f(F16{});
    default: check(dtype == DType::f32, "with_rounding: dtype"); return f(F32{});
  }
}

/// `value` to the nearest integer, ties to even, for |value| < 2^22 (branch-free, unlike nearbyint on plain x86-64).
inline float nearest_integer(float value) {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23
  return (value + kMagic) - kMagic;
}

}  // namespace nibble::rounding
