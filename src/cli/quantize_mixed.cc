// Settings module by module in the quantize command: --module-recipe, and the flags of what chooses them.
#include <CLI/CLI.hpp>

#include <set>

#include "base/error.h"
#include "cli/quantize_flags.h"
#include "quant/common/fused_units.h"

namespace nibble::cli {
namespace {

constexpr std::int64_t kLargestRecipe = std::int64_t{16} << 20;

/// Methods whose formats have one setting for all modules.
void refuse_settings(const ModuleRecipe& recipe, const std::string& method) {
  for (const RecipeRule& rule : recipe.rules) {
    if (rule.settings.object(rule.where).empty()) continue;
    throw bad_input(rule.where, ": ", method, " has the same settings for all modules; only false is possible");
  }
}

}  // namespace

void add_mixed_flags(CLI::App& command, MixedFlags& flags) {
  const char* const group = "Mixed precision";
  command
      .add_option("--module-recipe", flags.file,
                  "JSON file {\"regex\": settings}: the first that matches a module's name from its start decides. "
                  "gptq: bits, group_size, sym, desc_act, mse; quanto: weights; every method: false, to keep modules "
                  "in floats")
      ->group(group);
  command
      .add_option(
          "--target-bpw", flags.target_bpw,
          "gptq: choose 2, 3, 4 or 8 bits for each weight by what they do to the model's predictions on the "
          "calibration data, so that all take this many bits per weight, scales included; the recipe's \"bits\" "
          "are kept")
      ->check(CLI::Range(1.0, 16.0))
      ->excludes("--bits")
      ->group(group);
}

void read_module_recipe(QuantizeFlags& flags) {
  const bool gptq = flags.method == "gptq" && flags.gptq.format == "gptq";
  if (flags.mixed.target_bpw && !gptq) throw bad_input("--target-bpw is for --method gptq in its own format");
  if (flags.mixed.file.empty()) return;
  const Json json = Json::read(flags.mixed.file, kLargestRecipe);
  flags.selection.recipe = parse_module_recipe(json, flags.mixed.file);
  if (!gptq && flags.method != "quanto") {
    refuse_settings(*flags.selection.recipe, flags.method == "gptq" ? "--format awq" : flags.method);
  }
  flags.job.recipe.set("module-recipe", json);  // what it says, not where it lies
}

void note_torn_units(const QuantizationPlan& plan, const Checkpoint& source, std::vector<std::string>& notes) {
  std::map<std::string, std::string> schemes;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.module.empty()) schemes[tensor.module] = tensor.scheme;
  }
  std::vector<std::string> modules;
  constexpr std::string_view weight = ".weight";
  for (const TensorEntry& entry : source.tensors()) {
    if (entry.name.ends_with(weight)) modules.push_back(entry.name.substr(0, entry.name.size() - weight.size()));
  }
  std::int64_t torn = 0;
  std::string first;
  for (const FusedUnit& unit : fused_units(modules)) {
    std::set<std::string> different;
    for (const std::string& module : unit.modules) different.insert(schemes[module]);
    if (different.size() > 1 && torn++ == 0) first = unit.name;
  }
  if (torn == 0) return;
  notes.push_back(cat(torn, torn == 1 ? " group" : " groups",
                      " of modules with different settings that vLLM and SGLang "
                      "fuse (",
                      printable(first), torn == 1 ? "" : ", ...", "): they cannot load the result"));
}

}  // namespace nibble::cli
