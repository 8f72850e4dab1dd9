// LoRA adapters in the file format of the PEFT library (0.3 to 0.21): a folder with adapter_config.json and
// adapter_model.safetensors (or adapter_model.bin). Everything is checked once here, against the config and within the
// file; what needs the base model is checked when the adapter meets it (bind.h).
//
//   base_model.model.<module>.lora_A.weight            [r, inputs]
//   base_model.model.<module>.lora_B.weight            [outputs, r]   change of the weight: scaling * B A
//   base_model.model.<module>.lora_B.bias              [outputs]      lora_bias: scaling * it is added to the output
//   base_model.model.<module>.lora_magnitude_vector    [outputs]      DoRA: row norms of the changed weight
//   base_model.model.<module>.lora_embedding_A / _B    [r, rows] / [width, r]
//   base_model.model.<module>.weight / .bias           modules_to_save, bias, resized embeddings: replace the base's
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "run/adapter/config.h"

namespace nibble {

/// The low-rank change of one module. Shapes agree with each other and the ranks with the config; all values are
/// finite f32, f16 or bf16.
struct LoraModule {
  std::string name;          ///< as Transformers names the module: "model.layers.0.self_attn.q_proj"
  std::string first_tensor;  ///< for messages
  bool embedding = false;
  View a, b;
  std::optional<View> magnitude, bias;
  double scaling = 1;

  std::int64_t rank() const { return a.dim(0); }
  std::int64_t inputs() const { return a.dim(1); }
  std::int64_t outputs() const { return b.dim(0); }
};

/// A tensor of the base that the adapter brings whole.
struct Replacement {
  std::string name;    ///< as Transformers names it: "lm_head.weight"
  std::string tensor;  ///< in the adapter's file
  View view;
  bool own_copy = false;  ///< modules_to_save: a tied weight elsewhere keeps the base's values
};

class Adapter {
 public:
  /// From a folder, or org/name[@revision] in the Hugging Face cache. Throws Error(bad_input) naming file and tensor or
  /// field.
  static std::shared_ptr<const Adapter> open(const std::string& name);
  /// The same from a config and tensors that are open already; `config_file` and `tensors` begin messages.
  static std::shared_ptr<const Adapter> make(const Json& config, const std::string& config_file,
                                             std::shared_ptr<const Checkpoint> tensors);

  const std::string& file() const { return file_; }  ///< that holds the tensors
  const AdapterConfig& config() const { return config_; }
  std::span<const LoraModule> modules() const { return modules_; }
  std::span<const Replacement> replacements() const { return replacements_; }
  std::int64_t size_bytes() const { return bytes_; }
  std::shared_ptr<const void> owner() const { return tensors_; }

 private:
  friend class AdapterReader;
  std::string file_;
  AdapterConfig config_;
  std::vector<LoraModule> modules_;
  std::vector<Replacement> replacements_;
  std::int64_t bytes_ = 0;
  std::shared_ptr<const Checkpoint> tensors_;
};

/// An adapter in use; `scale` multiplies its own scaling (0: as if it were not there).
struct AdapterUse {
  std::shared_ptr<const Adapter> adapter;
  double scale = 1;
};

/// "PATH", or "PATH=SCALE" with a finite number after the last '='.
struct AdapterName {
  std::string path;
  double scale = 1;
};
AdapterName parse_adapter_name(const std::string& text);

}  // namespace nibble
