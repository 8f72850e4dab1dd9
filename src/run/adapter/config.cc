#include "run/adapter/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "models/config_reader.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxRank = 1 << 20;
constexpr double kMaxAlpha = 1e9;
constexpr std::size_t kMaxNames = 1 << 16;

/// Fields of variants that compute something else. Null, false and empty mean that the variant is not used.
constexpr std::array<std::string_view, 11> kRefused{
    "use_qalora",        "use_bdlora",    "alora_invocation_tokens", "layer_replication",
    "target_parameters", "arrow_config",  "monteclora_config",       "trainable_token_indices",
    "kasa_config",       "velora_config", "megatron_config"};

/// Ways of starting a training that also change the base's weights: the adapter alone does not say to what.
constexpr std::array<std::string_view, 5> kChangedBase{"pissa", "olora", "corda", "loftq", "lora_ga"};

bool unused(const Json& value) {
  if (value.is_null()) return true;
  if (value.is_bool()) return !value.boolean("");
  if (value.is_array()) return value.array("").empty();
  if (value.is_object()) return value.object("").empty();
  return false;
}

void check_kind(const models::ConfigReader& fields) {
  const std::string type = fields.text({"peft_type"}, "");
  if (type.empty()) throw bad_input(fields.field("peft_type"), " is missing: this is no PEFT adapter");
  if (type != "LORA") {
    throw bad_input(fields.field("peft_type"), ": ", printable(type), " adapters are not supported, only LORA");
  }
  for (const std::string_view key : kRefused) {
    const Json* value = fields.find({key});
    if (value != nullptr && !unused(*value)) throw bad_input(fields.field(key), " is set, which is not supported");
  }
  const Json* start = fields.find({"init_lora_weights"});
  if (start == nullptr || !start->is_string()) return;
  const std::string& name = start->string("init_lora_weights");
  for (const std::string_view changed : kChangedBase) {
    if (name.compare(0, changed.size(), changed) != 0) continue;
    throw bad_input(fields.field("init_lora_weights"), ": ", printable(name),
                    " also changed the base model's weights; save the adapter converted to plain LoRA");
  }
}

AdapterPattern numbers(const models::ConfigReader& fields, std::string_view key, double least, double most) {
  AdapterPattern out;
  const Json* patterns = fields.find({key});
  if (patterns == nullptr) return out;
  const std::string where = fields.field(key);
  const Json::Object& members = patterns->object(where);
  if (members.size() > kMaxNames) throw bad_input(where, ": too many patterns");
  for (const auto& [pattern, value] : members) {
    const std::string entry = where + ": " + printable(pattern);
    const double number = value.number(entry);
    if (!(number >= least && number <= most)) {
      throw bad_input(entry, " is ", value.dump(), ", which is not between ", least, " and ", most);
    }
    if (least >= 1 && number != std::floor(number)) throw bad_input(entry, " is ", value.dump(), ", no integer");
    out.add(pattern, number, entry);
  }
  return out;
}

std::vector<std::int64_t> layer_list(const models::ConfigReader& fields) {
  const Json* value = fields.find({"layers_to_transform"});
  if (value == nullptr) return {};
  const std::string where = fields.field("layers_to_transform");
  if (!value->is_array()) return {value->integer(where)};
  std::vector<std::int64_t> out;
  for (const Json& layer : value->array(where)) out.push_back(layer.integer(where));
  return out;
}

/// Whether one of the name's parts between dots is a number in `layers`.
bool in_layers(std::string_view module, const std::vector<std::int64_t>& layers) {
  for (std::size_t at = 0; at < module.size();) {
    const std::size_t end = std::min(module.find('.', at), module.size());
    std::int64_t number = 0;
    const auto [stop, error] = std::from_chars(module.data() + at, module.data() + end, number);
    if (error == std::errc() && stop == module.data() + end &&
        std::find(layers.begin(), layers.end(), number) != layers.end())
      return true;
    at = end + 1;
  }
  return false;
}

}  // namespace

AdapterTargets::AdapterTargets(const Json* value, const std::string& where) {
  if (value == nullptr) return;
  given_ = true;
  if (value->is_string()) {
    const std::string& text = value->string(where);
    all_linear_ = text == "all-linear";
    if (!all_linear_) whole_.emplace("(?:" + text + ")\\z", where);
    return;
  }
  const Json::Array& list = value->array(where);
  if (list.size() > kMaxNames) throw bad_input(where, ": too many names");
  for (const Json& name : list) endings_.push_back(name.string(where));
}

bool AdapterTargets::matches(std::string_view module) const {
  if (!given_) return false;
  if (all_linear_) return true;
  if (whole_) return whole_->matches_start(module);
  return std::any_of(endings_.begin(), endings_.end(), [&](const std::string& end) {
    if (module.size() <= end.size()) return module == end;
    return module.substr(module.size() - end.size()) == end && module[module.size() - end.size() - 1] == '.';
  });
}

void AdapterPattern::add(const std::string& pattern, double value, const std::string& where) {
  patterns_.emplace_back(Pattern("(?:.*\\.)?(?:" + pattern + ")$", where), value);
}

double AdapterPattern::of(std::string_view module, double otherwise) const {
  for (const auto& [pattern, value] : patterns_) {
    if (pattern.matches_start(module)) return value;
  }
  return otherwise;
}

bool AdapterConfig::targets(std::string_view module) const {
  if (!target_modules.given()) return true;
  if (exclude_modules.matches(module) || !target_modules.matches(module)) return false;
  return layers.empty() || in_layers(module, layers);
}

bool AdapterConfig::saves(std::string_view module) const {
  const auto named = [&](std::string_view name) {
    return std::any_of(modules_to_save.begin(), modules_to_save.end(), [&](const std::string& end) {
      return name.size() >= end.size() && name.substr(name.size() - end.size()) == end;
    });
  };
  for (std::size_t end = module.size(); end != std::string_view::npos && end > 0; end = module.rfind('.', end - 1)) {
    if (named(module.substr(0, end))) return true;
  }
  return false;
}

std::int64_t AdapterConfig::rank_of(std::string_view module) const {
  return static_cast<std::int64_t>(rank_pattern.of(module, static_cast<double>(r)));
}

double AdapterConfig::scaling_of(std::string_view module) const {
  const auto rank = static_cast<double>(rank_of(module));
  return alpha_pattern.of(module, lora_alpha) / (use_rslora ? std::sqrt(rank) : rank);
}

AdapterConfig parse_adapter_config(const Json& json, const std::string& file) {
  if (!json.is_object()) throw bad_input(file, ": not a JSON object");
  const models::ConfigReader fields(json, file);
  check_kind(fields);
  const AdapterConfig defaults;
  AdapterConfig out;
  out.r = fields.integer({"r"}, 1, kMaxRank, defaults.r);
  out.lora_alpha = fields.number({"lora_alpha"}, -kMaxAlpha, kMaxAlpha, defaults.lora_alpha);
  out.use_rslora = fields.boolean({"use_rslora"}, false);
  out.use_dora = fields.boolean({"use_dora"}, false);
  out.lora_bias = fields.boolean({"lora_bias"}, false);
  fields.boolean({"fan_in_fan_out"}, false);  // how the base stores its weights, which the base itself says
  out.bias = fields.text({"bias"}, defaults.bias);
  if (out.bias != "none" && out.bias != "all" && out.bias != "lora_only") {
    throw bad_input(fields.field("bias"), ": ", printable(out.bias), " is none of none, all, lora_only");
  }
  out.rank_pattern = numbers(fields, "rank_pattern", 1, static_cast<double>(kMaxRank));
  out.alpha_pattern = numbers(fields, "alpha_pattern", -kMaxAlpha, kMaxAlpha);
  const auto names = [&](std::string_view key) { return AdapterTargets(fields.find({key}), fields.field(key)); };
  out.target_modules = names("target_modules");
  out.exclude_modules = names("exclude_modules");
  if (const Json* saved = fields.find({"modules_to_save"})) {
    const std::string where = fields.field("modules_to_save");
    for (const Json& name : saved->array(where)) out.modules_to_save.push_back(name.string(where));
  }
  out.layers = layer_list(fields);
  out.base_model = fields.text({"base_model_name_or_path"}, "");
  return out;
}

}  // namespace nibble
