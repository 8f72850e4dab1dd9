#include "quant/common/module_recipe.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

RecipeRule rule_of(const std::string& key, const Json& value, const std::string& where) {
  const std::string mark = key.substr(0, 2);
  const bool marked = mark == "-:" || mark == "+:";
  RecipeRule rule{.pattern = Pattern(marked ? key.substr(2) : key, where),
                  .quantized = mark != "-:",
                  .settings = Json::Object{},
                  .where = cat(where, ": \"", printable(key), "\"")};
  const bool skips =
      (value.is_bool() && !value.boolean(rule.where)) || (value.is_string() && value.string(rule.where) == "skip");
  if (skips || (!rule.quantized && value.is_object())) {
    rule.quantized = false;
    return rule;
  }
  if (!rule.quantized || !value.is_object()) {
    throw bad_input(rule.where, ": expected an object of settings, or false for a module that stays in floats");
  }
  rule.settings = value;
  return rule;
}

}  // namespace

const RecipeRule* ModuleRecipe::find(std::string_view module) const {
  const auto found = std::find_if(rules.begin(), rules.end(),
                                  [&](const RecipeRule& rule) { return rule.pattern.matches_start(module); });
  return found == rules.end() ? nullptr : &*found;
}

bool ModuleRecipe::keeps(std::string_view module) const {
  const RecipeRule* rule = find(module);
  return rule != nullptr && !rule->quantized;
}

ModuleRecipe parse_module_recipe(const Json& json, const std::string& where) {
  ModuleRecipe recipe;
  for (const auto& [key, value] : json.object(where)) recipe.rules.push_back(rule_of(key, value, where));
  return recipe;
}

std::string escaped_name(std::string_view module) {
  std::string out;
  for (const char c : module) {
    if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace nibble
