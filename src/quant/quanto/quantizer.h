// Quanto as a method of the quantization pipeline.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/common/module_recipe.h"
#include "quant/quantizer.h"
#include "quant/quanto/reader.h"
#include "quant/select_modules.h"

namespace nibble::quanto {

/// Modules whose weights get another type than the others.
struct WeightRule {
  Pattern pattern;  ///< matches their names from the start
  WeightSpec weights;
};

/// Transformers' QuantoConfig: what `quantize` is told.
struct Config {
  WeightSpec weights;
  /// Not in QuantoConfig; quanto_qmap.json has a type per module, which optimum-quanto reads. The first match wins.
  std::vector<WeightRule> rules{};
  std::optional<QType> activations;
  /// Module names, prefixes or suffixes that stay in floats; nullopt: the output head.
  std::optional<std::vector<std::string>> modules_to_not_convert;

  /// How the weight of a module is quantized.
  const WeightSpec& spec_of(std::string_view module) const;
};

/// The recipe's rules for modules that are quantized; their one setting is "weights": "int4". The base's optimizer goes
/// where the type has it, else the type's own. Throws Error(bad_input) naming the rule.
std::vector<WeightRule> weight_rules(const ModuleRecipe& recipe, const WeightSpec& base);

/// From {"quant_method": "quanto", "weights": "int8", "activations": null, "modules_to_not_convert": null}; unknown
/// keys are ignored, wrong types and values are Error(bad_input) beginning with `where`.
Config parse_config(const Json& json, const std::string& where);
/// The inverse, with the keys of Transformers.
Json config_json(const Config& config);
/// modules_to_not_convert as patterns for select_modules.
ModuleSelection selection_of(const Config& config);

/// Calibrated scales of one module.
struct ActivationScales {
  float input = 1;
  float output = 1;
};

class Quantizer final : public ModuleQuantizer {
 public:
  /// Throws Error(bad_input) when the parts of `config` do not go together. `scales` by module; modules without get 1.
  explicit Quantizer(Config config, std::map<std::string, ActivationScales> scales = {});

  std::string describe(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const override;
  std::string note(const std::string& module, const Shape& weight, DType dtype) const override;
  void quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) override;
  std::vector<std::pair<std::string, std::string>> side_files(std::span<const std::string> modules) const override;
  void open_result(std::shared_ptr<const Checkpoint> written) override;
  QuantizationError verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const override;

 private:
  Config config_;
  std::map<std::string, ActivationScales> scales_;
  std::unique_ptr<Reader> result_;
};

}  // namespace nibble::quanto
