// A quantization method as the pipeline sees it (quantize_checkpoint.h): it turns one float weight after the other into
// the tensors of its format. Algorithm and format meet here; which modules are quantized is the pipeline's business.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "quant/select_modules.h"
#include "tensor/view.h"

namespace nibble {

/// How far stored values are from their floats, over all values of one or several weights.
struct QuantizationError {
  double largest = 0;          ///< max |w - value|
  double squared_error = 0;    ///< sum (w - value)^2
  double squared_weights = 0;  ///< sum w^2
  void add(const QuantizationError& other);
  /// sqrt(squared_error / squared_weights); 0 when there is nothing.
  double relative() const;
};

class ModuleQuantizer {
 public:
  virtual ~ModuleQuantizer() = default;

  /// A few words for tables on what becomes of `module`.weight: "int4, group_size 128".
  virtual std::string describe(const std::string& module, const Shape& weight, DType dtype) const = 0;

  /// The tensors that replace `module`.weight, in the order in which quantize() gives them.
  virtual std::vector<TensorPlan> outputs(const std::string& module, const Shape& weight, DType dtype) const = 0;

  /// The same for the values of `weight`, where lengths depend on them.
  virtual std::vector<TensorPlan> exact_outputs(const std::string& module, const TensorEntry& weight,
                                                ThreadPool& pool) const;

  /// Memory beyond the weight itself while quantize() runs on `threads` threads: its outputs and scratch.
  virtual std::int64_t working_bytes(const std::string& module, const Shape& weight, DType dtype,
                                     int threads) const = 0;

  /// What the user should know about this module, one line; usually empty.
  virtual std::string note(const std::string& module, const Shape& weight, DType dtype) const = 0;

  using Sink = std::function<void(const std::string& tensor, std::span<const std::byte> bytes)>;
  /// Quantizes `weight`. Error(bad_input) when a value is not finite.
  virtual void quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) = 0;

  /// What is written instead of the values of a tensor that is not quantized, of the same shape and dtype; null: it is
  /// copied. Asked after all calibration, and the same then whenever it is asked.
  virtual const Tensor* replacement(std::string_view tensor) const;

  /// Files beside the weights that the format needs, for example {"quanto_qmap.json", "{...}"}.
  virtual std::vector<std::pair<std::string, std::string>> side_files(std::span<const std::string> modules) const;

  /// config.json's quantization_config, for formats that have one there.
  virtual std::optional<Json> quantization_config(const SelectionResult& selected) const;

  /// Decodes what was stored for `module` and compares it with its floats; Error(runtime) when a value is further away
  /// than the method allows, Error(bad_input) when `written` cannot be read.
  virtual QuantizationError verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const = 0;
  /// Opens the finished checkpoint for verify().
  virtual void open_result(std::shared_ptr<const Checkpoint> written) = 0;
};

}  // namespace nibble
