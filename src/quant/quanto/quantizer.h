// Quanto as a method of the quantization pipeline.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "quant/quantizer.h"
#include "quant/quanto/reader.h"
#include "quant/select_modules.h"

namespace nibble::quanto {

/// Transformers' QuantoConfig: what `quantize` is told.
struct Config {
  WeightSpec weights;
  std::optional<QType> activations;
  /// Module names, prefixes or suffixes that stay in floats; nullopt: the output head.
  std::optional<std::vector<std::string>> modules_to_not_convert;
};

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

  std::string describe(const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const Shape& weight, DType dtype, int threads) const override;
  std::string note(const Shape& weight, DType dtype) const override;
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
