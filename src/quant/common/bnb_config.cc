#include "quant/common/bnb_config.h"

#include <algorithm>
#include <cmath>

namespace nibble::bnb {
namespace {

/// Fields of the config with the file and field in every message.
class Fields {
 public:
  Fields(const Json& json, const std::string& where) : json_(json), where_(where) {}

  std::string name(std::string_view key) const { return cat(where_, ": quantization_config.", key); }
  bool flag(std::string_view key) const {
    const Json* value = json_.get(key);
    return value != nullptr && value->boolean(name(key));
  }
  const Json* get(std::string_view key) const { return json_.get(key); }

 private:
  const Json& json_;
  const std::string& where_;
};

DType read_dtype(const Fields& fields, std::string_view key, DType otherwise, bool storage) {
  const Json* value = fields.get(key);
  if (value == nullptr) return otherwise;
  const std::string& text = value->string(fields.name(key));
  const std::optional<DType> dtype = dtype_from_name(text);
  const bool compute = dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
  const bool allowed = compute || (storage && (dtype == DType::u8 || dtype == DType::i8 || dtype == DType::f64));
  if (!dtype || !allowed)
    throw bad_input(fields.name(key), ": dtype ", printable(text), " is not one that bitsandbytes has");
  return *dtype;
}

float read_threshold(const Fields& fields) {
  const Json* value = fields.get("llm_int8_threshold");
  if (value == nullptr) return 6;
  const double number = value->number(fields.name("llm_int8_threshold"));
  if (!(number >= 0 && number <= 65504)) {
    throw bad_input(fields.name("llm_int8_threshold"), ": ", number, " (0 to 65504 is possible in float16)");
  }
  return static_cast<float>(number);
}

std::optional<quant::NamePatterns> read_skips(const Fields& fields) {
  const Json* value = fields.get("llm_int8_skip_modules");
  if (value == nullptr) return std::nullopt;
  const std::string where = fields.name("llm_int8_skip_modules");
  std::vector<std::string> patterns;
  for (const Json& item : value->array(where)) patterns.push_back(item.string(where));
  return quant::NamePatterns(std::move(patterns), where);
}

/// The last part of a module's name is that of an output head, which the default rule leaves alone.
bool is_head(std::string_view module) {
  const std::size_t dot = module.rfind('.');
  const std::string_view last = dot == std::string_view::npos ? module : module.substr(dot + 1);
  return last == "lm_head" || last == "embed_out";
}

Json skip_list(const Config& config, const SelectionResult& selected) {
  const auto head = [](const std::string& name) { return is_head(name); };
  const bool head_quantized = std::any_of(selected.modules.begin(), selected.modules.end(),
                                          [](const SelectedModule& module) { return is_head(module.name); });
  if (!config.skip && !head_quantized && std::all_of(selected.kept.begin(), selected.kept.end(), head)) return {};
  Json::Array list;
  if (config.skip) {
    for (const std::string& pattern : config.skip->texts()) list.emplace_back(pattern);
  }
  for (const std::string& module : selected.kept) {
    if (!config.skip || !config.skip->matches(module)) list.emplace_back(module);
  }
  return list;
}

}  // namespace

const Json* find_config(const Checkpoint& checkpoint) {
  const Json* config = checkpoint.config().get("quantization_config");
  if (config == nullptr || !config->is_object()) return nullptr;
  const Json* method = config->get("quant_method");
  if (method == nullptr) {
    const bool ours = config->get("load_in_4bit") != nullptr || config->get("load_in_8bit") != nullptr;
    return ours ? config : nullptr;
  }
  if (!method->is_string()) return nullptr;
  const std::string& name = method->string("quant_method");
  const bool ours = name == "bitsandbytes" || name == "bitsandbytes_4bit" || name == "bitsandbytes_8bit";
  return ours ? config : nullptr;
}

bool has_any_config(const Checkpoint& checkpoint) {
  return checkpoint.config().get("quantization_config") != nullptr ||
         checkpoint.config().get("compression_config") != nullptr;
}

Config parse_config(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  Config config;
  config.load_in_4bit = fields.flag("load_in_4bit");
  config.load_in_8bit = fields.flag("load_in_8bit");
  if (config.load_in_4bit == config.load_in_8bit) {
    throw bad_input(fields.name("load_in_4bit"), " and load_in_8bit are both ", config.load_in_4bit ? "true" : "false",
                    "; exactly one must be true");
  }
  if (const Json* type = fields.get("bnb_4bit_quant_type"); type != nullptr) {
    const std::string where_type = fields.name("bnb_4bit_quant_type");
    config.quant_type = type->string(where_type);
    if (*config.quant_type != "nf4" && *config.quant_type != "fp4") {
      throw bad_input(where_type, ": ", printable(*config.quant_type), " (nf4 and fp4 exist)");
    }
  }
  config.double_quant = fields.flag("bnb_4bit_use_double_quant");
  config.compute_dtype = read_dtype(fields, "bnb_4bit_compute_dtype", DType::f32, false);
  config.quant_storage = read_dtype(fields, "bnb_4bit_quant_storage", DType::u8, true);
  config.int8_threshold = read_threshold(fields);
  config.cpu_offload = fields.flag("llm_int8_enable_fp32_cpu_offload");
  config.has_fp16_weight = fields.flag("llm_int8_has_fp16_weight");
  config.skip = read_skips(fields);
  return config;
}

Json config_json(const Config& config, const SelectionResult& selected) {
  const auto text = [](DType dtype) { return Json(torch_name(dtype)); };
  return Json::Object{{"_load_in_4bit", config.load_in_4bit},
                      {"_load_in_8bit", config.load_in_8bit},
                      {"bnb_4bit_compute_dtype", text(config.compute_dtype)},
                      {"bnb_4bit_quant_storage", text(config.quant_storage)},
                      {"bnb_4bit_quant_type", config.quant_type.value_or("fp4")},
                      {"bnb_4bit_use_double_quant", config.double_quant},
                      {"llm_int8_enable_fp32_cpu_offload", config.cpu_offload},
                      {"llm_int8_has_fp16_weight", config.has_fp16_weight},
                      {"llm_int8_skip_modules", skip_list(config, selected)},
                      {"llm_int8_threshold", static_cast<double>(config.int8_threshold)},
                      {"load_in_4bit", config.load_in_4bit},
                      {"load_in_8bit", config.load_in_8bit},
                      {"quant_method", "bitsandbytes"}};
}

bool skips(const Config& config, const SkipFacts& facts, std::string_view module) {
  if (config.skip) return config.skip->matches(module);
  if (!facts.output_embedding.empty() && module == facts.output_embedding) return true;
  if (!facts.last_parameter_module.empty() && module == facts.last_parameter_module) return true;
  return std::find(facts.tied.begin(), facts.tied.end(), module) != facts.tied.end();
}

}  // namespace nibble::bnb
