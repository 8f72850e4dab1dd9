// quantization_config of a bitsandbytes checkpoint: what Transformers' BitsAndBytesConfig writes. Both schemes, 4 bits
// and LLM.int8, read it.
#pragma once
#include <optional>
#include <string>

#include "base/dtype.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "quant/common/name_patterns.h"
#include "quant/select_modules.h"

namespace nibble::bnb {

struct Config {
  bool load_in_4bit = false;
  bool load_in_8bit = false;
  std::optional<std::string> quant_type;  ///< bnb_4bit_quant_type, when the file says so
  bool double_quant = false;              ///< bnb_4bit_use_double_quant
  DType compute_dtype = DType::f32;       ///< bnb_4bit_compute_dtype
  DType quant_storage = DType::u8;        ///< bnb_4bit_quant_storage
  float int8_threshold = 6;               ///< llm_int8_threshold
  bool cpu_offload = false;      ///< llm_int8_enable_fp32_cpu_offload: a device_map may leave modules in floats
  bool has_fp16_weight = false;  ///< llm_int8_has_fp16_weight: the file holds plain 16-bit weights
  std::optional<quant::NamePatterns> skip;  ///< llm_int8_skip_modules; none: the default rule
};

/// quantization_config of config.json when it is one of bitsandbytes (also of the time before `quant_method`), else
/// nullptr.
const Json* find_config(const Checkpoint& checkpoint);

/// Whether config.json has a quantization_config of any method.
bool has_any_config(const Checkpoint& checkpoint);

/// Checks types and ranges; `where` (the file) begins messages.
Config parse_config(const Json& json, const std::string& where);

/// The keys that Transformers writes, in its order, for a model whose modules are quantized as `selected` says.
/// llm_int8_skip_modules is null where the default rule gives the same choice, else the list of the config or of what
/// stays in floats.
Json config_json(const Config& config, const SelectionResult& selected);

/// What the default skip rule asks of a model.
struct SkipFacts {
  std::string output_embedding;       ///< "lm_head"; empty: none
  std::vector<std::string> tied;      ///< modules that share a weight with another
  std::string last_parameter_module;  ///< the module that owns the model's last parameter
};

/// Whether the library leaves `module` in floats: an explicit list alone decides (lm_head is then quantized unless
/// listed); without one the modules of `facts` stay.
bool skips(const Config& config, const SkipFacts& facts, std::string_view module);

}  // namespace nibble::bnb
