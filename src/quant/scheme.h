// Schemes: what a quantized checkpoint's files mean. A scheme recognises a checkpoint, and turns the tensors of one
// linear module into a QTensor and back. Each is a folder here and one line in schemes.def; a missing ability is a null
// pointer.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "layout/layout.h"

namespace nibble {

/// Static activation quantization of one linear module (Quanto): its input, and its output if asked, are rounded to
/// scale * qtype value.
struct ActivationQuant {
  DType qtype = DType::i8;  ///< i8, f8_e4m3fn, f8_e5m2
  float input_scale = 1;
  float output_scale = 1;
  bool quantize_output = false;
};

/// What a format holds of a linear beyond its weight: a zero-point convention, an order of tensors. Made by load() or a
/// quantizer beside the QTensor, read by the same scheme's store(); kernels never see it.
struct FormatRecord {
  virtual ~FormatRecord() = default;
};

/// A linear module as read from a checkpoint.
struct LinearWeights {
  QTensor weight;            ///< [out_features, in_features]
  std::optional<View> bias;  ///< [out_features]
  std::optional<ActivationQuant> activation;
  std::shared_ptr<const FormatRecord> record;  ///< null where the format needs none
};

/// A tensor as a checkpoint holds it.
struct StoredTensor {
  std::string name;  ///< full name: "model.layers.0.self_attn.q_proj.qweight"
  Tensor tensor;
};

/// [outputs, inputs] of a linear as the model's config has it; 0: unknown. Formats that store codes group by group do
/// not hold the two numbers, so who knows them says them.
struct LinearSize {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

/// An opened checkpoint as one scheme understands it. Parsed and range-checked once.
class SchemeReader {
 public:
  virtual ~SchemeReader() = default;
  /// Whether this module's weight is stored by the scheme (else it is a plain tensor `module`.weight).
  virtual bool has(std::string_view module) const = 0;
  /// Throws Error(bad_input) naming file, tensor and reason, also when the stored sizes are not those of `size`.
  /// When the size is unknown and the format does not hold it, the weight has one group per row.
  virtual LinearWeights load(const std::string& module, LinearSize size, Exec& exec) const = 0;
  /// All quantized modules, in name order.
  virtual std::vector<std::string> modules() const = 0;
  /// One line for `inspect`: for example "int4, group_size 128, shift".
  virtual std::string describe(std::string_view module) const = 0;
  /// The module's size as far as its tensors' shapes tell it, without unpacking; zeros when they do not. The product is
  /// right even where the format does not hold the two numbers.
  virtual LinearSize size(std::string_view) const { return {}; }
  /// Remarks on the checkpoint's config for `inspect`, one line each: keys that need nothing here, contradictions and
  /// how they were settled.
  virtual std::vector<std::string> notes() const { return {}; }
};

/// A form that a scheme's weights take in memory: a row of the support matrix.
struct SchemeForm {
  std::string_view name;  ///< "nf4", "int4"
  std::int32_t bits = 0;  ///< QTensor::bits; 0: the checkpoint's config says
  const Layout* layout = nullptr;
};

/// The ways in which a scheme's tensors lie on disk (GPTQ's v1 and v2, AWQ's gemm and gemv), for `convert`.
struct SchemeVariants {
  std::span<const std::string_view> names;  ///< "gptq_v2"
  /// The same weight under a record for the variant. Throws Error(bad_input) beginning with the module's name when the
  /// variant cannot hold it.
  LinearWeights (*rewrite)(const std::string& module, const LinearWeights& linear, std::string_view variant) = nullptr;
  /// Sets the keys of a quantization config (an object, maybe empty) that name the variant; `example` is one of the
  /// checkpoint's weights.
  void (*edit_config)(Json& config, std::string_view variant, const QTensor& example) = nullptr;
};

struct Scheme {
  std::string_view name;
  std::string_view summary;
  /// Whether the checkpoint is this scheme's (from its JSON files and tensor names).
  bool (*claims)(const Checkpoint&) = nullptr;
  std::unique_ptr<SchemeReader> (*open)(std::shared_ptr<const Checkpoint>) = nullptr;
  /// The exact inverse of SchemeReader::load: the tensors of `module` with the bytes that were loaded.
  std::vector<StoredTensor> (*store)(const std::string& module, const LinearWeights& linear, Exec& exec) = nullptr;
  std::span<const SchemeForm> forms{};
  const SchemeVariants* variants = nullptr;  ///< null: there is one way
};

std::span<const Scheme* const> all_schemes();

/// The weights of a model, whatever scheme wrote them: what model builders read from.
class WeightStore {
 public:
  /// Chooses the scheme that claims the checkpoint (none: plain floats).
  explicit WeightStore(std::shared_ptr<const Checkpoint> checkpoint);
  ~WeightStore();

  /// The linear of `module` ("model.layers.0.self_attn.q_proj"): through the scheme, or dense from `module`.weight [n,
  /// k]. Builders pass the size that the config gives.
  LinearWeights linear(const std::string& module, Exec& exec, LinearSize size = {}) const;
  /// Whether `module` has a weight, plain or quantized.
  bool has_linear(const std::string& module) const;
  /// A plain tensor; nullptr / Error when missing.
  const View* find(std::string_view tensor) const;
  const View& at(std::string_view tensor) const;

  const Checkpoint& checkpoint() const { return *checkpoint_; }
  std::shared_ptr<const void> owner() const { return checkpoint_->owner(); }
  /// nullptr for plain floats.
  const Scheme* scheme() const { return scheme_; }
  const SchemeReader* reader() const { return reader_.get(); }

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
  const Scheme* scheme_ = nullptr;
  std::unique_ptr<SchemeReader> reader_;
};

}  // namespace nibble
