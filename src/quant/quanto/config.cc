// QuantoConfig: the fields of Transformers' quantization_config.
#include "quant/quanto/quantizer.h"

namespace nibble::quanto {
namespace {

QType qtype_of(const Json& value, const std::string& where) {
  const std::string& name = value.string(where);
  const std::optional<QType> qtype = qtype_from_name(name);
  if (!qtype) throw bad_input(where, ": unknown type ", printable(name), " (int8, int4, int2, float8)");
  return *qtype;
}

/// "int4" for qint4, "float8" for qfloat8_e4m3fn: the names in configs.
std::string config_name(QType qtype) {
  return qtype == QType::qfloat8_e4m3fn ? "float8" : std::string(name_of(qtype).substr(1));
}

}  // namespace

Config parse_config(const Json& json, const std::string& where) {
  Config config;
  json.object(where);
  if (const Json* method = json.get("quant_method"); method != nullptr) {
    const std::string& name = method->string(where + ".quant_method");
    if (name != "quanto") throw bad_input(where, ".quant_method: expected quanto, found ", printable(name));
  }
  if (const Json* weights = json.get("weights")) config.weights.qtype = qtype_of(*weights, where + ".weights");
  if (const Json* activations = json.get("activations")) {
    config.activations = qtype_of(*activations, where + ".activations");
    if (is_packed(*config.activations)) throw bad_input(where, ".activations: int8 or float8");
  }
  if (const Json* kept = json.get("modules_to_not_convert")) {
    const std::string field = where + ".modules_to_not_convert";
    std::vector<std::string> names;
    for (const Json& name : kept->array(field)) names.push_back(name.string(field));
    config.modules_to_not_convert = std::move(names);
  }
  return config;
}

Json config_json(const Config& config) {
  Json kept;
  if (config.modules_to_not_convert) {
    Json::Array names;
    for (const std::string& name : *config.modules_to_not_convert) names.emplace_back(name);
    kept = std::move(names);
  }
  return Json::Object{{"quant_method", "quanto"},
                      {"weights", config_name(config.weights.qtype)},
                      {"activations", config.activations ? Json(config_name(*config.activations)) : Json()},
                      {"modules_to_not_convert", std::move(kept)}};
}

ModuleSelection selection_of(const Config& config) {
  ModuleSelection selection;
  if (!config.modules_to_not_convert) return selection;
  selection.lm_head = true;
  for (const std::string& name : *config.modules_to_not_convert) {
    std::string literal;
    for (const char c : name) literal += c == '*' || c == '?' || c == '[' ? std::string{'[', c, ']'} : std::string{c};
    selection.exclude.push_back(literal + "*");
    selection.exclude.push_back("*" + literal);
  }
  return selection;
}

}  // namespace nibble::quanto
