// quanto_qmap.json: which modules are quantized, and to what.
#include "quant/quanto/reader.h"

namespace nibble::quanto {
namespace {

/// The qtype under `key`: "none" and null are none.
std::optional<QType> qtype_of(const Json& module, std::string_view key, const std::string& where) {
  const Json* value = module.get(key);
  if (value == nullptr) return std::nullopt;
  const std::string& name = value->string(cat(where, ".", key));
  if (name == "none") return std::nullopt;
  const std::optional<QType> qtype = qtype_from_name(name);
  if (!qtype) throw bad_input(where, ".", key, ": unknown type ", printable(name));
  return qtype;
}

}  // namespace

QuantizationMap parse_map(const Json& json, const std::string& file) {
  QuantizationMap map;
  for (const auto& [name, module] : json.object(file)) {
    const std::string where = cat(file, ": ", printable(name));
    if (!module.is_object()) throw bad_input(where, ": expected an object with weights and activations");
    MapEntry entry{qtype_of(module, "weights", where), qtype_of(module, "activations", where)};
    if (entry.activations && is_packed(*entry.activations)) {
      throw bad_input(where, ".activations: ", name_of(*entry.activations), " is for weights only");
    }
    map.emplace(name, entry);
  }
  return map;
}

Json map_json(const std::vector<std::pair<std::string, MapEntry>>& modules) {
  Json::Object map;
  const auto text = [](const std::optional<QType>& qtype) { return qtype ? Json(name_of(*qtype)) : Json("none"); };
  for (const auto& [name, entry] : modules) {
    map.emplace_back(name, Json::Object{{"weights", text(entry.weights)}, {"activations", text(entry.activations)}});
  }
  return map;
}

}  // namespace nibble::quanto
