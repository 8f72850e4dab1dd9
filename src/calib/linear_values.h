// The floats of linears that are about to be quantized.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "nn/block.h"

namespace nibble {

/// Throws Error(bad_input) naming the checkpoint and `module`.weight when a value is NaN or infinite.
void require_finite(std::span<const float> values, const Checkpoint& source, const std::string& module);

/// [outputs, inputs] of a linear of the model in `source`, as f32. Throws as require_finite.
std::vector<float> linear_values(const nn::Linear& linear, const Checkpoint& source, Exec& exec);

/// The linears of a block that can be quantized, in the order in which they run: not the router of a mixture, which no
/// library quantizes.
std::vector<nn::Linear*> quantizable_linears(nn::Block& block);

}  // namespace nibble
