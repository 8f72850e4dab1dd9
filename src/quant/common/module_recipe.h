// Settings module by module, as a user writes them: an ordered JSON object of regular expressions on module names, each
// with what deviates from the settings of all. What GPTQModel's `dynamic` is; for any method that stores settings per
// module, and for leaving modules in floats with every method.
//
//   {"model\\.layers\\.0\\..*": {"bits": 8},          settings; which there are is the method's business
//    ".*\\.down_proj": {"bits": 4, "group_size": 32},
//    ".*\\.o_proj": false}                             stays in floats (also: "skip")
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "quant/common/pattern.h"

namespace nibble {

struct RecipeRule {
  Pattern pattern;        ///< matches a module's name from its start
  bool quantized = true;  ///< false: such a module stays in floats
  Json settings{};        ///< an object; empty for a module that stays in floats
  std::string where;      ///< begins messages: the file and the pattern
};

struct ModuleRecipe {
  std::vector<RecipeRule> rules;  ///< the first that matches decides

  /// The rule that decides about a module; nullptr: none, settings of all apply. Throws Error(bad_input) naming the
  /// pattern when matching takes too many steps.
  const RecipeRule* find(std::string_view module) const;
  /// Whether the module stays in floats.
  bool keeps(std::string_view module) const;
};

/// Parses a recipe; `where` (a file name) begins every message. Patterns may carry the marks of `dynamic`: "+:" means
/// nothing, "-:" is false, whatever settings follow. Throws Error(bad_input) for anything else than the above.
ModuleRecipe parse_module_recipe(const Json& json, const std::string& where);

/// The name as a regular expression that matches it and nothing else, but for the anchors: "model\.layers\.1".
std::string escaped_name(std::string_view module);

}  // namespace nibble
