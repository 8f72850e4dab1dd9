// AQLM as a method of the quantization pipeline: codes, codebooks and scales of weights that the solver has chosen.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/aqlm/aqlm.h"
#include "quant/aqlm/solver.h"
#include "quant/solved_quantizer.h"

namespace nibble::aqlm {

struct QuantizerConfig {
  Options options;
  bool true_sequential = true;  ///< inside a block, linears see inputs that come through those quantized before them
};

/// "2x8" as codebooks and bits of `options`. Throws Error(bad_input) for other texts and numbers out of range.
void parse_shape(std::string_view text, Options& options);

/// The layout and the tensors of a solved weight [rows, cols]: codes, codebooks (f16), scales (f16).
SolvedModule pack(const std::string& module, std::int64_t rows, std::int64_t cols, const Solution& solved,
                  const Options& options, Exec& exec);

class Quantizer final : public SolvedQuantizer {
 public:
  /// Throws Error(bad_input) for options that solver or format do not have.
  explicit Quantizer(QuantizerConfig config);

  std::string describe(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const override;
  /// Says where codebooks take more room than codes.
  std::string note(const std::string& module, const Shape& weight, DType dtype) const override;
  /// linear_weights_not_to_quantize names every linear that stays in floats twice, with and without ".weight":
  /// Transformers 4 compares the first, Transformers 5 the second.
  std::optional<Json> quantization_config(const SelectionResult& selected) const override;
  SolvedModule solve(const std::string& module, std::span<const float> weight, std::int64_t rows, std::int64_t cols,
                     std::span<const float> gram, Exec& exec) override;
  bool true_sequential() const override { return config_.true_sequential; }
  /// Multiply-adds of one round: products with the Gram matrix, and words compared.
  double solve_work(std::int64_t rows, std::int64_t cols) const override;

 private:
  QuantizerConfig config_;
};

}  // namespace nibble::aqlm
