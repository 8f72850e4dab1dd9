#include "cli/recipe.h"

#include <CLI/CLI.hpp>

namespace nibble::cli {

Json recipe_of(const CLI::App& command, const std::set<std::string>& leave_out) {
  Json::Object recipe;
  for (const CLI::Option* option : command.get_options()) {
    if (option->count() == 0 || option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (leave_out.contains(name)) continue;
    Json::Array values;
    for (const std::string& value : option->results()) values.emplace_back(value);
    recipe.emplace_back(name, values.size() == 1 ? values.front() : Json(std::move(values)));
  }
  return recipe;
}

}  // namespace nibble::cli
