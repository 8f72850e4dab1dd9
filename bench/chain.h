// A chain of random weight matrices with the shapes of a Llama model: what decoding and prefill read, without the rest
// of a model.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "layout/layout.h"

namespace nibble::bench {

struct LlamaShape {
  std::int64_t hidden = 2048, inner = 5632, layers = 22, heads = 32, kv_heads = 4, vocab = 32000;
};

/// A weight of a named kind: "f32", "f16", "bf16", "int8", "float8", "int4", "int2", "int3" (groups of 128 for the last
/// three), "gptq4", "gptq8", "nf4", "nf4-nested", "llm-int8", "aqlm" (1x16).
QTensor random_weight(const std::string& kind, std::int64_t rows, std::int64_t cols, Exec& exec);

class Chain {
 public:
  Chain(const std::string& kind, const LlamaShape& shape, bool with_head, Exec& exec);

  /// All products for `m` tokens; products of one input go together as a model's do.
  void run(std::int64_t m, Exec& exec);

  std::int64_t bytes() const { return bytes_; }
  /// Multiply-adds count as two.
  double flops(std::int64_t m) const { return 2.0 * static_cast<double>(elements_ * m); }

 private:
  void add(std::int64_t rows, std::int64_t cols, const std::string& kind, Exec& exec);
  std::vector<QTensor> weights_;
  std::vector<std::size_t> steps_;  ///< how many products share an input
  std::int64_t bytes_ = 0, elements_ = 0, widest_in_ = 0, widest_out_ = 0;
  std::vector<float> x_, y_;
};

}  // namespace nibble::bench
