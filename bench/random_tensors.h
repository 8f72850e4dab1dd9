// The tensors of a Llama checkpoint with random weights, as each format lays them out.
#pragma once
#include <string>
#include <vector>

#include "base/dtype.h"
#include "chain.h"

namespace nibble::bench {

/// What a tensor is filled with.
enum class Fill {
  uniform,   ///< floats in [-value, value)
  constant,  ///< floats, or 32-bit words, of `value`
  random,    ///< random bytes
  ramp,      ///< i32: i / value
  bytes      ///< those of `text`
};

struct Named {
  std::string name;
  DType dtype = DType::bf16;
  std::vector<std::int64_t> shape;
  Fill fill = Fill::uniform;
  double value = 0;
  std::string text;

  std::int64_t count() const {
    std::int64_t product = 1;
    for (const std::int64_t size : shape) product *= size;
    return product;
  }
  std::int64_t size_bytes() const { return count() * static_cast<std::int64_t>(size_of(dtype)); }
};

/// All tensors of the model in a format: bf16, gptq4, gptq8, awq, nf4, nf4-nested, int8 (LLM.int8) or aqlm (1x16,
/// groups of 8). Magnitudes keep activations near one. Throws Error(bad_input) for an unknown format.
std::vector<Named> tensors_of(const LlamaShape& shape, const std::string& format);

/// The value of config.json's quantization_config; empty for bf16.
std::string quantization_config(const std::string& format);

}  // namespace nibble::bench
