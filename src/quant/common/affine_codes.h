// Affine quantization of one group of values to codes 0 .. 2^bits - 1, with the shift as a float
// (value = round(round(scale * code) - shift)) or as an integer zero point (value = round(scale * (code - zero))).
// Arithmetic is that of PyTorch on tensors of dtype `value`: every operation rounds to it.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace nibble {

struct AffineGroup {
  float scale = 0;
  float shift = 0;
};

/// Min-max: scale = (max - min) / (2^bits - 1), shift = -min, over `count` >= 1 finite values. Zero need not be a code.
AffineGroup minmax_group(DType value, std::int32_t bits, const float* x, std::int64_t count);

/// The zero point nearest to the shift: clamp(round(shift / scale), 0, 2^bits - 1); 0 when both are zero.
float zero_point_of(DType value, std::int32_t bits, AffineGroup group);

/// codes = clamp(round((x + shift) / scale)); 0 / 0 gives 0.
void encode_affine(DType value, std::int32_t bits, AffineGroup group, const float* x, std::int64_t count,
                   std::uint8_t* codes);

/// codes = clamp(round(x / scale) + zero).
void encode_zero_point(DType value, std::int32_t bits, float scale, float zero, const float* x, std::int64_t count,
                       std::uint8_t* codes);

/// The values of float-shift codes.
void decode_affine(DType value, AffineGroup group, const std::uint8_t* codes, std::int64_t count, float* x);

/// The values of zero-point codes.
void decode_zero_point(DType value, float scale, float zero, const std::uint8_t* codes, std::int64_t count, float* x);

}  // namespace nibble
