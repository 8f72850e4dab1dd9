// bitsandbytes NF4 and FP4 as a method of the quantization pipeline.
#pragma once
#include <memory>
#include <string>

#include "quant/bnb4/bnb4.h"
#include "quant/bnb4/quantize.h"
#include "quant/quantizer.h"
#include "quant/select_modules.h"

namespace nibble::bnb4 {

class Quantizer final : public ModuleQuantizer {
 public:
  /// `config`: what config.json will say (quant_type and double_quant come from `spec`). Throws Error(bad_input) when
  /// the parts do not go together.
  Quantizer(WeightSpec spec, bnb::Config config);

  std::string describe(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> exact_outputs(const std::string& module, const TensorEntry& weight,
                                        ThreadPool& pool) const override;
  std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const override;
  std::string note(const std::string& module, const Shape& weight, DType dtype) const override;
  void quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) override;
  std::optional<Json> quantization_config(const SelectionResult& selected) const override;
  void open_result(std::shared_ptr<const Checkpoint> written) override;
  QuantizationError verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const override;

 private:
  std::vector<TensorPlan> plans(const std::string& module, const Shape& weight, const QuantState& state) const;

  WeightSpec spec_;
  bnb::Config config_;
  std::unique_ptr<Reader> result_;
};

}  // namespace nibble::bnb4
