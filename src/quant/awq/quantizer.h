// AWQ as a method of the quantization pipeline: codes of weights whose columns and rows calibration has scaled
// (calib/awq_calibration.h), and the norms and biases that make up for it.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quant/awq/awq.h"
#include "quant/common/awq_search.h"
#include "quant/common/gptq_solver.h"
#include "quant/solved_quantizer.h"

namespace nibble::awq {

/// Transformers' AwqConfig as far as it says how weights are quantized.
struct QuantizerConfig {
  AwqOptions options;
  Variant variant = Variant::gemm;
  /// The format alone, with codes by this algorithm (4 bits, groups of consecutive inputs) instead of AWQ's.
  std::optional<GridSolver> solver{};
  bool true_sequential = false;  ///< for `solver`; AWQ's own inputs come through the blocks as they were
  /// By the name of a linear: the activation in front of it, whose outputs are divided by a tensor "<name>.scales" that
  /// is stored beside the linear's (GPT-NeoX, BLOOM, StarCoder2).
  std::map<std::string, std::string, std::less<>> activations{};
  std::vector<std::string> never{};  ///< linears of blocks that stay in floats always: routers
};

class Quantizer final : public SolvedQuantizer {
 public:
  explicit Quantizer(QuantizerConfig config) : SolvedQuantizer("awq"), config_(std::move(config)) {}

  const QuantizerConfig& config() const { return config_; }

  /// A weight whose columns were multiplied by `input_scales` [cols] and whose rows were divided by `output_scales`
  /// [rows]: clipped by `group_grams` (awq_group_grams; empty: not), rounded and kept. Throws Error(bad_input) naming
  /// the module when a scale does not fit f16.
  struct Scaled {
    std::span<const float> values;  ///< [rows, cols], finite
    std::vector<float> input_scales, output_scales;
  };
  void add_scaled(const std::string& module, const Scaled& weight, std::span<const float> group_grams, Exec& exec);

  /// By what a module's columns were multiplied [cols] and its rows divided [rows; empty: by nothing].
  struct Scales {
    std::vector<float> inputs, outputs;
  };
  /// Those of a module that add_scaled() made; Error(internal) when it did not.
  const Scales& scales(const std::string& module) const;
  /// Keeps what add_scaled() made of a module in an earlier run.
  void restore(const std::string& module, SolvedModule solved, Scales scales);

  /// What is written in place of a tensor that is not quantized.
  void replace(const std::string& tensor, Tensor values) { replacements_.insert_or_assign(tensor, std::move(values)); }

  /// By config().solver, or by rounding and clipping alone, without scales.
  SolvedModule solve(const std::string& module, std::span<const float> weight, std::int64_t rows, std::int64_t cols,
                     std::span<const float> gram, Exec& exec) override;
  bool true_sequential() const override { return config_.true_sequential; }
  bool needs_data() const override { return !config_.solver || config_.solver->algorithm == GridAlgorithm::gptq; }

  std::string describe(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const override;
  const Tensor* replacement(std::string_view tensor) const override;
  std::optional<Json> quantization_config(const SelectionResult& selected) const override;
  void as_in_source(const std::string& module, std::int64_t row, std::span<float> values) const override;

 private:
  /// The tensors of codes, with the module's activation scales where it has them.
  SolvedModule stored(const std::string& module, const GridCodes& codes, std::int64_t rows, std::int64_t cols,
                      const Scales& scales, Exec& exec) const;
  SolvedModule round(const std::string& module, AwqWeight weight, std::int64_t cols, std::span<const float> group_grams,
                     const Scales& scales, Exec& exec) const;

  QuantizerConfig config_;
  std::map<std::string, Scales> scales_;
  std::map<std::string, Tensor, std::less<>> replacements_;
};

}  // namespace nibble::awq
