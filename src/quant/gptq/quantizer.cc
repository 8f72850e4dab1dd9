#include "quant/gptq/quantizer.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "quant/common/fused_units.h"

namespace nibble::gptq {
namespace {

constexpr std::int64_t kWord = 32;  // codes of inputs and zero points of outputs fill whole words

std::int64_t groups_of(const GptqOptions& options, std::int64_t cols) {
  return options.group == -1 ? 1 : (cols + options.group - 1) / options.group;
}

void check_shape(const std::string& module, const Shape& weight, const GptqOptions& options) {
  if (weight.size() != 2 || weight[0] % kWord != 0 || weight[1] % kWord != 0) {
    throw bad_input(printable(module), ": a weight of ", to_string(weight),
                    " cannot be stored as GPTQ, which packs multiples of 32 outputs and inputs; exclude it");
  }
  if (options.group != -1 && weight[1] % options.group != 0) {
    throw bad_input(printable(module), ": groups of ", options.group, " do not divide its ", weight[1],
                    " inputs; choose another group size or exclude it");
  }
}

void check_bits(std::int64_t bits, const std::string& where) {
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    throw bad_input(where, ": ", bits, " bits (2, 3, 4 and 8 can be stored)");
  }
}

/// One setting of a rule.
void set_option(const std::string& key, const Json& value, const std::string& rule, GptqOptions& options) {
  const std::string where = rule + ": " + key;
  if (key == "bits") {
    check_bits(value.integer(where), where);
    options.bits = static_cast<std::int32_t>(value.integer(where));
  } else if (key == "group_size") {
    options.group = value.integer(where);
    if (options.group != -1 && options.group < 1) {
      throw bad_input(where, ": ", options.group, " (a positive number of inputs, or -1 for all)");
    }
  } else if (key == "sym") {
    options.sym = value.boolean(where);
  } else if (key == "desc_act") {
    options.desc_act = value.boolean(where);
  } else if (key == "mse") {
    options.mse_norm = value.number(where);
    if (!(options.mse_norm >= 0 && options.mse_norm <= 8)) throw bad_input(where, ": not between 0 and 8");
  } else {
    throw bad_input(rule, ": no setting \"", printable(key), "\" (bits, group_size, sym, desc_act, mse)");
  }
}

/// GPTQModel's `dynamic`: what stays in floats, then the rules. It puts "-:" first itself when it reads them, so that
/// only exact names may stand there. Modules that engines fuse are named together, and the fused one with them.
Json::Object dynamic_of(const QuantizerConfig& config, const SelectionResult& selected) {
  std::vector<std::string> all = selected.kept;
  for (const SelectedModule& module : selected.modules) all.push_back(module.name);
  const std::set<std::string> kept(selected.kept.begin(), selected.kept.end());
  const auto is_kept = [&](const std::string& module) { return kept.contains(module); };
  Json::Object dynamic;
  for (const FusedUnit& unit : fused_units(all)) {
    const bool whole = std::all_of(unit.modules.begin(), unit.modules.end(), is_kept);
    if (whole) dynamic.emplace_back("-:" + pattern_of(unit), Json::Object{});
    for (const std::string& module : unit.modules) {
      if (!whole && is_kept(module)) dynamic.emplace_back("-:" + pattern_of({{module}, module}), Json::Object{});
    }
  }
  for (const ModuleRule& rule : config.rules) dynamic.emplace_back("+:" + rule.pattern.text(), rule.settings);
  return dynamic;
}

}  // namespace

const GptqOptions& QuantizerConfig::options_of(std::string_view module) const {
  for (const ModuleRule& rule : rules) {
    if (rule.pattern.matches_start(module)) return rule.options;
  }
  return solver.options;
}

Zeros QuantizerConfig::zeros() const {
  const bool sym = solver.options.sym &&
                   std::all_of(rules.begin(), rules.end(), [](const ModuleRule& rule) { return rule.options.sym; });
  return sym ? Zeros::v1 : Zeros::v2;
}

std::vector<ModuleRule> module_rules(const ModuleRecipe& recipe, const GptqOptions& base) {
  std::vector<ModuleRule> rules;
  for (const RecipeRule& rule : recipe.rules) {
    if (!rule.quantized) continue;  // the choice of modules has seen to those, and their names come first in the config
    GptqOptions options = base;
    for (const auto& [key, value] : rule.settings.object(rule.where)) set_option(key, value, rule.where, options);
    rules.push_back({rule.pattern, rule.settings, options});
  }
  return rules;
}

SolvedModule pack(const std::string& module, std::int64_t rows, std::int64_t cols, const GptqResult& solved,
                  const QuantizerConfig& config, Exec& exec) {
  const GptqOptions& o = config.options_of(module);
  SolvedModule out;
  out.linear.weight = pack_grid(solved, rows, o.bits, o.group == -1 ? cols : o.group, exec);
  auto record = std::make_shared<Record>();
  record->zeros = config.zeros();
  out.linear.record = std::move(record);
  out.tensors = store(module, out.linear, exec);
  out.loss = solved.loss;
  out.damp = solved.damp;
  out.dead = solved.dead;
  out.rounded = solved.rounded;
  return out;
}

Quantizer::Quantizer(QuantizerConfig config) : SolvedQuantizer("gptq"), config_(std::move(config)) {
  check_bits(config_.solver.options.bits, "GPTQ");
}

std::string Quantizer::describe(const std::string& module, const Shape&, DType) const {
  const GptqOptions& o = config_.options_of(module);
  return cat("int", o.bits, ", group_size ", o.group, o.sym ? ", sym" : ", asym", o.desc_act ? ", desc_act" : "");
}

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType) const {
  const GptqOptions& o = config_.options_of(module);
  check_shape(module, weight, o);
  const std::int64_t rows = weight[0], cols = weight[1], bits = o.bits;
  const std::int64_t groups = groups_of(o, cols);
  return {{module + ".g_idx", DType::i32, {cols}},
          {module + ".qweight", DType::i32, {cols * bits / 32, rows}},
          {module + ".qzeros", DType::i32, {groups, rows * bits / 32}},
          {module + ".scales", DType::f16, {groups, rows}}};
}

std::int64_t Quantizer::working_bytes(const std::string&, const Shape& weight, DType, int) const {
  const std::int64_t rows = weight.at(0), cols = weight.at(1);
  // The Gram matrix in f64, and f32 matrices while it is factored; the weight, its codes and its updates.
  return cols * cols * 28 + rows * cols * 14;
}

std::optional<Json> Quantizer::quantization_config(const SelectionResult& selected) const {
  const GptqOptions& o = config_.solver.options;
  const bool has_head = std::any_of(selected.modules.begin(), selected.modules.end(),
                                    [](const SelectedModule& module) { return is_output_head(module.name); });
  const char* format = config_.zeros() == Zeros::v1 ? "gptq" : "gptq_v2";
  Json json =
      Json::Object{{"bits", std::int64_t{o.bits}},
                   {"checkpoint_format", format},
                   {"damp_percent", o.damp},
                   {"desc_act", o.desc_act},
                   {"group_size", o.group},
                   {"lm_head", has_head},
                   {"meta", Json::Object{{"quantizer", Json::Array{"nibble"}},
                                         {"algorithm", config_.solver.algorithm == GridAlgorithm::rtn ? "rtn" : "gptq"},
                                         {"refine", std::int64_t{config_.solver.refine}},
                                         {"act_group_aware", o.act_group_aware && !o.desc_act},
                                         {"static_groups", o.static_groups}}},
                   {"pack_dtype", "int32"},
                   {"quant_method", "gptq"},
                   {"static_groups", o.static_groups},
                   {"sym", o.sym},
                   {"true_sequential", config_.true_sequential}};
  Json::Object dynamic = dynamic_of(config_, selected);
  if (!dynamic.empty()) json.set("dynamic", std::move(dynamic));
  return json;
}

SolvedModule Quantizer::solve(const std::string& module, std::span<const float> weight, std::int64_t rows,
                              std::int64_t cols, std::span<const float> gram, Exec& exec) {
  GridSolver solver = config_.solver;
  solver.options = config_.options_of(module);
  const GptqResult solved = solve_grid(weight, rows, gram, solver, exec);
  return pack(module, rows, cols, solved, config_, exec);
}

}  // namespace nibble::gptq
