#include "calib/linear_values.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "nn/each_linear.h"

namespace nibble {

void require_finite(std::span<const float> values, const Checkpoint& source, const std::string& module) {
  if (std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) return;
  throw bad_input(source.folder().string(), ": tensor ", module,
                  ".weight: NaN or infinity among its values cannot be quantized");
}

std::vector<float> linear_values(const nn::Linear& linear, const Checkpoint& source, Exec& exec) {
  std::vector<float> values(static_cast<std::size_t>(linear.outputs() * linear.inputs()));
  decode(linear.weight, 0, linear.outputs(), values.data(), exec);
  require_finite(values, source, linear.name);
  return values;
}

std::vector<nn::Linear*> quantizable_linears(nn::Block& block) {
  std::vector<nn::Linear*> all;
  nn::each_block_linear(block, [&](nn::Linear& linear) {
    if (&linear != &block.moe.router) all.push_back(&linear);
  });
  return all;
}

}  // namespace nibble
