// Linears with statically quantized activations, with the numbers of Quanto: the input is rounded to scale * code, int8
// codes are multiplied by int8 weights exactly, and the output is rounded again where the checkpoint asks for it.
#pragma once
#include <cstdint>

#include "nn/linear.h"

namespace nibble::nn {

/// y = linear(x) with linear.activation applied; shapes as Linear::forward. exec.tap is told y before its own
/// quantization and may replace the scales.
void forward_quantized(const Linear& linear, const float* x, std::int64_t m, float* y, Exec& exec);

/// The code of a value, exact in f32: int8: clamp(rint(x / scale), -128, 127), NaN becomes 0; float8: x / scale clamped
/// to the finite range and rounded. `dtype`: the model's float type, to which x and the quotient are rounded first.
float quantize_code(DType qtype, DType dtype, float x, float scale);

}  // namespace nibble::nn
