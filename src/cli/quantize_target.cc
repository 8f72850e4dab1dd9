// quantize --target-bpw: bits of every weight chosen by what they do to the model's predictions.
#include <algorithm>
#include <cctype>
#include <iostream>
#include <map>

#include "base/error.h"
#include "calib/sensitivity.h"
#include "cli/progress_bar.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"
#include "quant/common/allocate.h"
#include "quant/common/fused_units.h"

namespace nibble::cli {
namespace {

/// What weights may get; the divergence of the second is measured (calib/sensitivity.h).
constexpr std::int32_t kBits[] = {2, 3, 4, 8};
constexpr std::size_t kReference = 1;

/// Modules to which bits are given, and what the others take.
struct Search {
  std::vector<FusedUnit> units;
  std::vector<const RecipeRule*> rules;  ///< by unit: the user's for its modules; null: none
  std::map<std::string, const TensorEntry*> weights;
  std::vector<std::string> fixed;  ///< modules whose bits the recipe gives
};

Search search_of(const QuantizeFlags& flags, const Checkpoint& source) {
  Search search;
  std::vector<std::string> free;
  const auto rule_of = [&](const std::string& module) {
    return flags.selection.recipe ? flags.selection.recipe->find(module) : nullptr;
  };
  for (const SelectedModule& module : select_modules(source, flags.selection).modules) {
    search.weights[module.name] = module.weight;
    const RecipeRule* rule = rule_of(module.name);
    const bool given = rule != nullptr && rule->settings.find("bits") != nullptr;
    (given ? search.fixed : free).push_back(module.name);
  }
  for (const FusedUnit& unit : fused_units(free)) {
    const RecipeRule* rule = rule_of(unit.modules.front());
    const auto same = [&](const std::string& module) { return rule_of(module) == rule; };
    if (std::all_of(unit.modules.begin(), unit.modules.end(), same)) {
      search.units.push_back(unit);
      search.rules.push_back(rule);
      continue;
    }
    for (const std::string& module : unit.modules) {  // a recipe has torn them apart already
      search.units.push_back({{module}, module});
      search.rules.push_back(rule_of(module));
    }
  }
  if (search.units.empty()) throw bad_input("--target-bpw: the recipe gives bits to every module: nothing to choose");
  return search;
}

/// The method with this many bits wherever the recipe gives none.
std::unique_ptr<gptq::Quantizer> quantizer_at(const QuantizeFlags& flags, std::int32_t bits) {
  gptq::QuantizerConfig config = gptq_config(flags);
  config.solver.options.bits = bits;
  config.solver.refine = 0;  // lowers all errors alike, and takes long
  if (flags.selection.recipe) config.rules = gptq::module_rules(*flags.selection.recipe, config.solver.options);
  return std::make_unique<gptq::Quantizer>(std::move(config));
}

std::int64_t stored_bytes(const gptq::Quantizer& quantizer, const std::string& module, const TensorEntry& weight) {
  std::int64_t bytes = 0;
  for (const TensorPlan& tensor : quantizer.outputs(module, weight.view.shape(), weight.view.dtype())) {
    const auto size = static_cast<std::int64_t>(size_of(tensor.dtype));
    bytes += count_of(tensor.shape, size_of(tensor.dtype)) * size;
  }
  return bytes;
}

/// "self_attn.qkv_proj" of "model.layers.3.self_attn.qkv_proj"; a name without a number as it is.
std::string place_in_block(const std::string& name) {
  for (std::size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
    std::size_t end = dot + 1;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end])) != 0) ++end;
    if (end > dot + 1 && end < name.size() && name[end] == '.') return name.substr(end + 1);
  }
  return name;
}

void print_choice(const Search& search, const std::vector<std::int32_t>& bits, double divergence) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (std::size_t u = 0; u < search.units.size(); ++u) {
    const std::string place = place_in_block(search.units[u].name);
    auto line = std::find_if(lines.begin(), lines.end(), [&](const auto& known) { return known.first == place; });
    if (line == lines.end()) line = lines.insert(lines.end(), {place, ""});
    line->second += cat(" ", bits[u]);
  }
  for (const auto& [place, list] : lines) std::cout << "bits      " << printable(place) << list << '\n';
  std::cout << "expected  " << fixed(divergence, 4) << " nats from the source per token of calibration data\n"
            << std::flush;
}

/// The bits that most modules have; of equally many the fewest.
std::int32_t most_common(const Search& search, const std::vector<std::int32_t>& bits) {
  std::map<std::int32_t, std::size_t> modules;
  for (std::size_t u = 0; u < bits.size(); ++u) modules[bits[u]] += search.units[u].modules.size();
  return std::max_element(modules.begin(), modules.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

/// Sizes and divergences into a choice per unit, an index into kBits.
std::vector<std::size_t> spread_budget(const Search& search, double target,
                                       const std::vector<std::unique_ptr<gptq::Quantizer>>& candidates,
                                       const std::vector<std::vector<double>>& divergences) {
  std::int64_t weights = 0, fixed_bytes = 0, least = 0;
  for (const auto& [module, weight] : search.weights) weights += weight->view.count();
  for (const std::string& module : search.fixed) {
    fixed_bytes += stored_bytes(*candidates.front(), module, *search.weights.at(module));
  }
  std::vector<std::vector<SizeChoice>> parts;
  for (std::size_t u = 0; u < search.units.size(); ++u) {
    parts.emplace_back();
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      std::int64_t bytes = 0;
      for (const std::string& module : search.units[u].modules) {
        bytes += stored_bytes(*candidates[c], module, *search.weights.at(module));
      }
      parts.back().push_back({bytes, divergences[u][c]});
    }
    least += parts.back().front().bytes;
  }
  const auto budget = static_cast<std::int64_t>(target * static_cast<double>(weights) / 8);
  std::vector<std::size_t> chosen = allocate(parts, budget - fixed_bytes);
  if (chosen.empty()) {
    throw bad_input("--target-bpw ", target, ": scales and zero points included these modules take at least ",
                    fixed(8 * static_cast<double>(least + fixed_bytes) / static_cast<double>(weights), 3),
                    " bits per weight");
  }
  return chosen;
}

/// The choice as rules and as metadata.
void keep_choice(QuantizeFlags& flags, const Search& search, const std::vector<std::int32_t>& bits) {
  flags.gptq.bits = most_common(search, bits);
  flags.mixed.chosen_bits = Json::Object{};
  for (std::size_t u = 0; u < search.units.size(); ++u) {
    flags.mixed.chosen_bits.set(search.units[u].name, std::int64_t{bits[u]});
    if (bits[u] == flags.gptq.bits) continue;
    Json settings = search.rules[u] == nullptr ? Json(Json::Object{}) : search.rules[u]->settings;
    settings.set("bits", std::int64_t{bits[u]});
    flags.mixed.chosen.push_back({.pattern = Pattern(pattern_of(search.units[u]), "--target-bpw"),
                                  .quantized = true,
                                  .settings = std::move(settings),
                                  .where = "--target-bpw"});
  }
  flags.job.recipe.set("chosen-bits", flags.mixed.chosen_bits);
}

}  // namespace

void choose_bits(QuantizeFlags& flags, std::shared_ptr<const Checkpoint> source, Exec& exec) {
  const double target = *flags.mixed.target_bpw;
  const Search search = search_of(flags, *source);
  std::vector<std::unique_ptr<gptq::Quantizer>> candidates;
  SensitivityTask task{.source = source, .units = {}, .sequences = calibration_data(flags, *source), .candidates = {}};
  for (const std::int32_t bits : kBits) {
    candidates.push_back(quantizer_at(flags, bits));
    task.candidates.push_back(candidates.back().get());
  }
  task.reference = kReference;
  for (const FusedUnit& unit : search.units) task.units.push_back(unit.modules);
  // What cannot be afforded, or stored at all, is said before any work.
  const std::vector<std::vector<double>> nothing(search.units.size(), std::vector<double>(candidates.size()));
  spread_budget(search, target, candidates, nothing);
  ProgressBar bar;
  const std::vector<std::vector<double>> divergences = measure_sensitivity(task, exec, bar.callback());
  bar.clear();
  const std::vector<std::size_t> chosen = spread_budget(search, target, candidates, divergences);
  std::vector<std::int32_t> bits;
  double divergence = 0;
  for (std::size_t u = 0; u < chosen.size(); ++u) {
    bits.push_back(kBits[chosen[u]]);
    divergence += divergences[u][chosen[u]];
  }
  keep_choice(flags, search, bits);
  if (!flags.json) print_choice(search, bits, divergence);
}

}  // namespace nibble::cli
