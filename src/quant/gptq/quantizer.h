// GPTQ as a method of the quantization pipeline: the tensors of weights whose codes calibration has chosen.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "quant/common/gptq_solver.h"
#include "quant/gptq/gptq.h"
#include "quant/quantizer.h"

namespace nibble::gptq {

/// Transformers' GPTQConfig as far as it says how weights are quantized.
struct QuantizerConfig {
  GptqOptions options;
  bool true_sequential = true;  ///< inside a block, linears see inputs that come through those quantized before them
  /// Zero points as stored; v2 keeps a zero point of 0, which asymmetric weights have and v1 cannot hold.
  Zeros zeros() const { return options.sym ? Zeros::v1 : Zeros::v2; }
};

/// One weight after quantizing.
struct QuantizedModule {
  LinearWeights linear;               ///< as a Reader would load it, to run the model on
  std::vector<StoredTensor> tensors;  ///< g_idx, qweight, qzeros, scales
  double loss = 0, damp = 0;
  std::int64_t dead = 0;
  bool rounded = false;
};

/// The layout and the tensors of a solved weight [rows, cols]. Scales are rounded to f16, as GPTQModel stores them.
QuantizedModule pack(const std::string& module, std::int64_t rows, std::int64_t cols, const GptqResult& solved,
                     const QuantizerConfig& config, Exec& exec);

class Quantizer final : public ModuleQuantizer {
 public:
  /// Throws Error(bad_input) for options that the format does not have.
  explicit Quantizer(QuantizerConfig config);

  /// What calibration made of one module.
  void add(const std::string& module, QuantizedModule quantized);
  const std::map<std::string, QuantizedModule>& modules() const { return modules_; }
  const QuantizerConfig& config() const { return config_; }

  std::string describe(const Shape& weight, DType dtype) const override;
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const override;
  std::int64_t working_bytes(const Shape& weight, DType dtype, int threads) const override;
  std::string note(const Shape& weight, DType dtype) const override;
  void quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) override;
  std::vector<std::pair<std::string, std::string>> side_files(std::span<const std::string> modules) const override;
  std::optional<Json> quantization_config(const SelectionResult& selected) const override;
  void open_result(std::shared_ptr<const Checkpoint> written) override;
  QuantizationError verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const override;

 private:
  QuantizerConfig config_;
  std::map<std::string, QuantizedModule> modules_;
  std::unique_ptr<Reader> result_;
  std::shared_ptr<const Checkpoint> written_;
};

}  // namespace nibble::gptq
