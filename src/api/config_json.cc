#include "api/config_json.h"

#include <algorithm>
#include <array>

#include "base/dtype.h"
#include "base/error.h"
#include "quant/aqlm/solver.h"
#include "quant/common/quant_config.h"
#include "quant/quanto/qtype.h"

namespace nibble {
namespace {

template <class T>
Json json_of(const T& value) {
  return Json(value);
}

template <class T>
Json json_of(const std::vector<T>& list) {
  Json::Array out;
  for (const T& item : list) out.push_back(json_of(item));
  return out;
}

Json json_of(const ExllamaConfig& config) {
  Json::Object out{{"version", config.version}};
  if (config.max_input_len) out.emplace_back("max_input_len", *config.max_input_len);
  if (config.max_batch_size) out.emplace_back("max_batch_size", *config.max_batch_size);
  return out;
}

Json json_of(const FusedModules& map) {
  return Json::Object{{"attention", json_of(map.attention)},
                      {"layernorm", json_of(map.layernorm)},
                      {"mlp", json_of(map.mlp)},
                      {"use_alibi", map.use_alibi},
                      {"num_attention_heads", map.num_attention_heads},
                      {"num_key_value_heads", map.num_key_value_heads},
                      {"hidden_size", map.hidden_size}};
}

template <class T>
Json json_of(const std::optional<T>& value) {
  return value ? json_of(*value) : Json();
}

Json::Object fields(const QuantoConfig& c) {
  return {{"quant_method", "quanto"},
          {"weights", c.weights},
          {"activations", json_of(c.activations)},
          {"modules_to_not_convert", json_of(c.modules_to_not_convert)}};
}

Json::Object fields(const GPTQConfig& c) {
  return {{"quant_method", "gptq"},
          {"bits", c.bits},
          {"group_size", c.group_size},
          {"damp_percent", c.damp_percent},
          {"desc_act", c.desc_act},
          {"sym", c.sym},
          {"true_sequential", c.true_sequential},
          {"use_cuda_fp16", c.use_cuda_fp16 ? Json(true) : Json()},
          {"model_seqlen", json_of(c.model_seqlen)},
          {"block_name_to_quantize", json_of(c.block_name_to_quantize)},
          {"module_name_preceding_first_block", json_of(c.module_name_preceding_first_block)},
          {"batch_size", c.batch_size},
          {"pad_token_id", json_of(c.pad_token_id)},
          {"use_exllama", json_of(c.use_exllama)},
          {"max_input_length", json_of(c.max_input_length)},
          {"exllama_config", json_of(c.exllama_config)},
          {"cache_block_outputs", c.cache_block_outputs},
          {"modules_in_block_to_quantize", json_of(c.modules_in_block_to_quantize)}};
}

Json::Object fields(const AwqConfig& c) {
  return {{"quant_method", "awq"},
          {"bits", c.bits},
          {"group_size", c.group_size},
          {"zero_point", c.zero_point},
          {"version", lower_case(c.version)},
          {"backend", c.backend},
          {"do_fuse", c.modules_to_fuse && !c.do_fuse ? Json(true) : json_of(c.do_fuse)},
          {"fuse_max_seq_len", json_of(c.fuse_max_seq_len)},
          {"modules_to_fuse", json_of(c.modules_to_fuse)},
          {"modules_to_not_convert", json_of(c.modules_to_not_convert)},
          {"exllama_config", json_of(c.exllama_config)}};
}

Json::Object fields(const AqlmConfig& c) {
  return {{"quant_method", "aqlm"},
          {"in_group_size", c.in_group_size},
          {"out_group_size", c.out_group_size},
          {"num_codebooks", c.num_codebooks},
          {"nbits_per_codebook", c.nbits_per_codebook},
          {"linear_weights_not_to_quantize", json_of(c.linear_weights_not_to_quantize)}};
}

Json::Object fields(const BitsAndBytesConfig& c) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_8bit", c.load_in_8bit},
          {"load_in_4bit", c.load_in_4bit},
          {"llm_int8_threshold", json_of(c.llm_int8_threshold)},
          {"llm_int8_skip_modules", json_of(c.llm_int8_skip_modules)},
          {"llm_int8_enable_fp32_cpu_offload", c.llm_int8_enable_fp32_cpu_offload ? Json(true) : Json()},
          {"llm_int8_has_fp16_weight", c.llm_int8_has_fp16_weight},
          {"bnb_4bit_compute_dtype", json_of(c.bnb_4bit_compute_dtype)},
          {"bnb_4bit_quant_type", c.bnb_4bit_quant_type},
          {"bnb_4bit_use_double_quant", c.bnb_4bit_use_double_quant},
          {"bnb_4bit_quant_storage", c.bnb_4bit_quant_storage}};
}

/// Throws unless `holds`: "GPTQConfig: bits: 5 (2, 3, 4 and 8 exist)".
template <class T>
void want(bool holds, std::string_view field, const T& value, std::string_view what) {
  if (!holds) throw bad_input(field, ": ", value, " (", what, ")");
}

void check_group(std::int64_t group, std::string_view field) {
  want(group == -1 || group > 0, field, group, "a positive number of inputs, or -1 for all");
}

void check_seqlen(const std::optional<std::int64_t>& seqlen, std::string_view field) {
  want(!seqlen || *seqlen >= 1, field, seqlen.value_or(0), "at least 1");
}

void check_exllama(const std::optional<ExllamaConfig>& config, std::string_view field) {
  if (config) want(config->version == 1 || config->version == 2, field, config->version, "versions 1 and 2 exist");
}

void check_fields(const QuantoConfig& c) {
  if (!quanto::qtype_from_name(c.weights)) throw bad_input("QuantoConfig: unknown weights ", printable(c.weights));
}

void check_fields(const GPTQConfig& c) {
  want(c.bits == 2 || c.bits == 3 || c.bits == 4 || c.bits == 8, "GPTQConfig: bits", c.bits, "2, 3, 4 and 8 exist");
  check_group(c.group_size, "GPTQConfig: group_size");
  want(c.damp_percent > 0 && c.damp_percent < 1, "GPTQConfig: damp_percent", c.damp_percent, "between 0 and 1");
  want(c.batch_size >= 1, "GPTQConfig: batch_size", c.batch_size, "at least 1");
  check_seqlen(c.model_seqlen, "GPTQConfig: model_seqlen");
  check_exllama(c.exllama_config, "GPTQConfig: exllama_config: version");
}

void check_fields(const AwqConfig& c) {
  static constexpr std::array<std::string_view, 7> versions{"gemm",    "gemv",      "gemv_fast", "gemvfast",
                                                            "exllama", "exllamav2", "ipex"};
  want(c.bits == 4, "AwqConfig: bits", c.bits, "AWQ has 4");
  check_group(c.group_size, "AwqConfig: group_size");
  want(std::find(versions.begin(), versions.end(), lower_case(c.version)) != versions.end(), "AwqConfig: version",
       printable(c.version), "gemm, gemv, gemv_fast, exllama and ipex exist");
  want(c.backend == "autoawq" || c.backend == "llm-awq", "AwqConfig: backend", printable(c.backend),
       "autoawq and llm-awq exist");
  check_exllama(c.exllama_config, "AwqConfig: exllama_config: version");
  check_seqlen(c.model_seqlen, "AwqConfig: model_seqlen");
  const bool fuses = c.do_fuse.value_or(c.modules_to_fuse.has_value());
  if (fuses && !c.fuse_max_seq_len) throw bad_input("AwqConfig: fusing needs fuse_max_seq_len");
  want(!c.fuse_max_seq_len || *c.fuse_max_seq_len > 0, "AwqConfig: fuse_max_seq_len", c.fuse_max_seq_len.value_or(0),
       "a positive number of tokens");
  if (!c.modules_to_fuse) return;
  const FusedModules& map = *c.modules_to_fuse;
  want(map.attention.empty() || map.attention.size() == 4, "AwqConfig: modules_to_fuse: attention",
       map.attention.size(), "names of query, key, value and output projection, or none");
  want(map.mlp.empty() || map.mlp.size() == 3, "AwqConfig: modules_to_fuse: mlp", map.mlp.size(),
       "names of gate, up and down projection, or none");
  const auto positive = [](std::int64_t value, std::string_view field) {
    want(value > 0, field, value, "needed, and positive");
  };
  positive(map.num_attention_heads, "AwqConfig: modules_to_fuse: num_attention_heads");
  positive(map.num_key_value_heads, "AwqConfig: modules_to_fuse: num_key_value_heads");
  positive(map.hidden_size, "AwqConfig: modules_to_fuse: hidden_size");
}

void check_fields(const AqlmConfig& c) {
  const auto positive = [](std::int64_t value, std::string_view field) {
    want(value > 0, field, value, "must be positive");
  };
  positive(c.in_group_size, "AqlmConfig: in_group_size");
  positive(c.out_group_size, "AqlmConfig: out_group_size");
  positive(c.num_codebooks, "AqlmConfig: num_codebooks");
  positive(c.nbits_per_codebook, "AqlmConfig: nbits_per_codebook");
  check_seqlen(c.model_seqlen, "AqlmConfig: model_seqlen");
  want(aqlm::preset_from_name(c.preset).has_value(), "AqlmConfig: preset", printable(c.preset),
       "fast, standard and best exist");
}

void check_fields(const BitsAndBytesConfig& c) {
  if (c.load_in_8bit && c.load_in_4bit)
    throw bad_input("BitsAndBytesConfig: load_in_8bit and load_in_4bit are both true; one at a time");
  if (c.llm_int8_has_fp16_weight)
    throw bad_input(
        "BitsAndBytesConfig: llm_int8_has_fp16_weight keeps 16-bit weights for training; nibble does not train");
  const double threshold = c.llm_int8_threshold.value_or(6);
  want(threshold >= 0 && threshold <= 65504, "BitsAndBytesConfig: llm_int8_threshold", threshold, "0 to 65504");
  want(c.bnb_4bit_quant_type == "nf4" || c.bnb_4bit_quant_type == "fp4", "BitsAndBytesConfig: bnb_4bit_quant_type",
       printable(c.bnb_4bit_quant_type), "nf4 and fp4 exist");
  const auto compute = dtype_from_name(c.bnb_4bit_compute_dtype.value_or("float32"));
  want(compute == DType::f32 || compute == DType::f16 || compute == DType::bf16,
       "BitsAndBytesConfig: bnb_4bit_compute_dtype", printable(c.bnb_4bit_compute_dtype.value_or("")),
       "float32, float16 and bfloat16 exist");
  want(dtype_from_name(c.bnb_4bit_quant_storage).has_value(), "BitsAndBytesConfig: bnb_4bit_quant_storage",
       printable(c.bnb_4bit_quant_storage), "uint8, int8, float16, bfloat16, float32 and float64 exist");
}

}  // namespace

std::string_view class_name(const QuantizationConfig& config) {
  static constexpr std::array<std::string_view, std::variant_size_v<QuantizationConfig>> names{
      "QuantoConfig", "GPTQConfig", "AwqConfig", "AqlmConfig", "BitsAndBytesConfig"};
  return names[config.index()];
}

Json config_json(const QuantizationConfig& config) {
  return std::visit([](const auto& c) -> Json { return fields(c); }, config);
}

std::span<const std::string_view> loading_attributes(const QuantizationConfig& config) {
  static constexpr std::array<std::string_view, 4> gptq{"use_exllama", "exllama_config", "use_cuda_fp16",
                                                        "max_input_length"};
  static constexpr std::array<std::string_view, 5> awq{"version", "do_fuse", "modules_to_fuse", "fuse_max_seq_len",
                                                       "exllama_config"};
  static constexpr std::array<std::string_view, 3> bnb{"llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload",
                                                       "bnb_4bit_compute_dtype"};
  if (std::holds_alternative<GPTQConfig>(config)) return gptq;
  if (std::holds_alternative<AwqConfig>(config)) return awq;
  if (std::holds_alternative<BitsAndBytesConfig>(config)) return bnb;
  return {};
}

void check_config(const QuantizationConfig& config) {
  std::visit([](const auto& c) { check_fields(c); }, config);
}

}  // namespace nibble
