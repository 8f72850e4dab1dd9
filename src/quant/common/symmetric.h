// Symmetric 8-bit quantization: value = round(scale * code), codes int8 or one of the float8 types.
// What LLM.int8, Quanto qint8 / qfloat8 and W8A8 formats share; rounding follows the dtype of the values.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace nibble {

/// Largest value of a code type: 127 (i8), 448, 57344 or 240 (f8_e4m3fn, f8_e5m2, f8_e4m3fnuz).
float largest_code(DType code);

/// round(max |x| / largest_code): the absmax scale of `count` finite values.
float absmax_scale(DType value, DType code, const float* x, std::int64_t count);

/// codes = clamp(round(x / scale)): int8 rounds half to even and clamps to [-128, 127]; float8 clamps to its finite
/// range and rounds to nearest even. A zero scale gives code 0 for x = 0 (0 / 0) and the largest code else.
void encode_symmetric(DType value, DType code, const float* x, std::int64_t count, float scale, std::byte* codes);

/// The same with one scale per element.
void encode_symmetric(DType value, DType code, const float* x, std::int64_t count, const float* scales,
                      std::byte* codes);

/// x = round(scale * code).
void decode_symmetric(DType value, DType code, const std::byte* codes, std::int64_t count, float scale, float* x);

}  // namespace nibble
