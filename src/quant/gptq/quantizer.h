// GPTQ as a method of the quantization pipeline: the tensors of weights whose codes calibration has chosen.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/common/gptq_solver.h"
#include "quant/common/module_recipe.h"
#include "quant/gptq/gptq.h"
#include "quant/solved_quantizer.h"

namespace nibble::gptq {

/// Modules that are quantized otherwise than the others.
struct ModuleRule {
  Pattern pattern;      ///< matches their names from the start
  Json settings;        ///< what differs, as `dynamic` holds it
  GptqOptions options;  ///< all of it
};

/// Transformers' GPTQConfig as far as it says how weights are quantized.
struct QuantizerConfig {
  GridSolver solver;
  bool true_sequential = true;  ///< inside a block, linears see inputs that come through those quantized before them
  std::vector<ModuleRule> rules{};  ///< the first match wins

  /// How a module is quantized.
  const GptqOptions& options_of(std::string_view module) const;
  /// Zero points as stored, of all modules; v2 keeps a zero point of 0, which asymmetric weights have and v1 cannot
  /// hold.
  Zeros zeros() const;
};

/// The recipe's rules for modules that are quantized: bits, group_size, sym, desc_act, mse. Throws Error(bad_input)
/// naming the rule for other settings or values that the format cannot store.
std::vector<ModuleRule> module_rules(const ModuleRecipe& recipe, const GptqOptions& base);

/// The layout and the tensors of a solved weight [rows, cols]. Scales are rounded to f16, as GPTQModel stores them.
SolvedModule pack(const std::string& module, std::int64_t rows, std::int64_t cols, const GptqResult& solved,
                  const QuantizerConfig& config, Exec& exec);

class Quantizer final : public SolvedQuantizer {
 public:
  /// Throws Error(bad_input) for options that the format does not have.
  explicit Quantizer(QuantizerConfig config);

  std::string describe(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const override;
  std::optional<Json> quantization_config(const SelectionResult& selected) const override;
  SolvedModule solve(const std::string& module, std::span<const float> weight, std::int64_t rows, std::int64_t cols,
                     std::span<const float> gram, Exec& exec) override;
  bool needs_data() const override { return config_.solver.algorithm == GridAlgorithm::gptq; }
  bool true_sequential() const override { return config_.true_sequential; }

 private:
  QuantizerConfig config_;
};

}  // namespace nibble::gptq
