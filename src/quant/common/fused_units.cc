#include "quant/common/fused_units.h"

#include <array>
#include <map>
#include <string_view>

#include "quant/common/module_recipe.h"

namespace nibble {
namespace {

constexpr std::string_view kExperts = ".experts.";

/// The name of a module's last part, and of everything before it.
struct Parts {
  std::string_view prefix, last;
};
Parts parts_of(std::string_view module) {
  const std::size_t dot = module.rfind('.');
  if (dot == std::string_view::npos) return {{}, module};
  return {module.substr(0, dot), module.substr(dot + 1)};
}

/// What engines call the matrix that a module goes into; its own name where that is a matrix by itself.
std::string engine_name(const std::string& module) {
  const std::size_t experts = module.find(kExperts);
  const std::string_view below =
      experts == std::string::npos ? "" : std::string_view(module).substr(experts + kExperts.size());
  if (experts != std::string::npos && experts > 0 && below.find('.') != std::string_view::npos) {
    return module.substr(0, experts + kExperts.size() - 1);
  }
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 5> fused{{{"q_proj", "qkv_proj"},
                                                                                       {"k_proj", "qkv_proj"},
                                                                                       {"v_proj", "qkv_proj"},
                                                                                       {"gate_proj", "gate_up_proj"},
                                                                                       {"up_proj", "gate_up_proj"}}};
  const auto [prefix, last] = parts_of(module);
  for (const auto& [part, whole] : fused) {
    if (last == part && !prefix.empty()) return std::string(prefix) + "." + std::string(whole);
  }
  return module;
}

}  // namespace

std::vector<FusedUnit> fused_units(const std::vector<std::string>& modules) {
  std::vector<FusedUnit> units;
  std::map<std::string, std::size_t> known;
  for (const std::string& module : modules) {
    const auto [found, fresh] = known.emplace(engine_name(module), units.size());
    if (fresh) units.push_back({{}, found->first});
    units[found->second].modules.push_back(module);
  }
  for (FusedUnit& unit : units) {  // an up_proj without its gate_proj (Phi-2 and others) is no part of anything
    if (unit.modules.size() == 1) unit.name = unit.modules.front();
  }
  return units;
}

std::string pattern_of(const FusedUnit& unit) {
  if (unit.modules.size() == 1) return "^" + escaped_name(unit.name) + "$";
  if (unit.modules.front().starts_with(unit.name + ".")) return "^" + escaped_name(unit.name) + "(\\.|$)";
  const auto [prefix, last] = parts_of(unit.name);
  std::string choices;
  for (const std::string& module : unit.modules) choices += escaped_name(parts_of(module).last) + "|";
  return "^" + escaped_name(prefix) + "\\.(" + choices + escaped_name(last) + ")$";
}

}  // namespace nibble
