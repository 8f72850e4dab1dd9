// LLM.int8 as a method of the quantization pipeline.
#pragma once
#include <memory>
#include <string>

#include "quant/bnb8/bnb8.h"
#include "quant/quantizer.h"

namespace nibble::bnb8 {

/// The stored tensors of one weight.
struct StoredWeight {
  Tensor codes;   ///< i8 [N, K]
  Tensor absmax;  ///< f32 [N]: the largest magnitude of each row in f16
};

/// Quantizes `weight` [N, K] (f32, f16 or bf16) row by row with the library's bits. `name` begins messages:
/// Error(bad_input) when a value is NaN, infinite, or beyond 65504, the largest f16, in which the library computes. The
/// same bytes for any number of threads.
StoredWeight quantize_weight(const View& weight, const std::string& name, ThreadPool& pool);

class Quantizer final : public ModuleQuantizer {
 public:
  /// `config`: what config.json will say.
  explicit Quantizer(bnb::Config config);

  std::string describe(const std::string& module, const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const override;
  std::string note(const std::string& module, const Shape& weight, DType dtype) const override;
  void quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) override;
  std::optional<Json> quantization_config(const SelectionResult& selected) const override;
  void open_result(std::shared_ptr<const Checkpoint> written) override;
  QuantizationError verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const override;

 private:
  bnb::Config config_;
  std::shared_ptr<const Checkpoint> result_;
};

}  // namespace nibble::bnb8
