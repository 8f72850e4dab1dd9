// GPTQ in the quantize command.
#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/quantize_flags.h"

namespace nibble::cli {

gptq::QuantizerConfig gptq_config(const QuantizeFlags& flags) {
  const GptqFlags& f = flags.gptq;
  gptq::QuantizerConfig config;
  if (f.algorithm == "rtn" && f.refine > 0 && flags.dataset.empty()) {
    throw bad_input("--refine lowers the loss on calibration data: name some with --dataset");
  }
  config.solver.options.bits = f.bits;
  config.solver.options.group = flags.group_size;
  config.solver.options.sym = !f.asym;
  config.solver.options.desc_act = f.desc_act;
  config.solver.options.act_group_aware = f.act_group_aware;
  config.solver.options.static_groups = f.static_groups;
  config.solver.options.damp = f.damp;
  config.solver.options.mse_norm = f.mse;
  config.solver.algorithm = f.algorithm == "rtn" ? GridAlgorithm::rtn : GridAlgorithm::gptq;
  config.solver.refine = f.refine;
  config.true_sequential = f.true_sequential;
  return config;
}

std::unique_ptr<SolvedQuantizer> grid_quantizer(const QuantizeFlags& flags) {
  gptq::QuantizerConfig config = gptq_config(flags);
  if (flags.gptq.format == "gptq") {
    ModuleRecipe recipe{flags.mixed.chosen};
    if (flags.selection.recipe) {
      const std::vector<RecipeRule>& rules = flags.selection.recipe->rules;
      recipe.rules.insert(recipe.rules.end(), rules.begin(), rules.end());
    }
    config.rules = gptq::module_rules(recipe, config.solver.options);
    return std::make_unique<gptq::Quantizer>(std::move(config));
  }
  if (config.solver.options.bits != 4) throw bad_input("--format awq: has 4 bits, not ", config.solver.options.bits);
  if (config.solver.options.desc_act && !config.solver.options.static_groups) {
    throw bad_input("--format awq: has groups of consecutive inputs only: --desc-act goes with --static-groups there");
  }
  awq::QuantizerConfig format;
  format.options.group = flags.group_size;
  format.variant = awq::variant_named(flags.awq.version);
  format.true_sequential = config.true_sequential;
  format.solver = config.solver;
  return std::make_unique<awq::Quantizer>(std::move(format));
}

void add_gptq_flags(CLI::App& command, GptqFlags& flags) {
  const char* const group = "GPTQ (needs --dataset; --group-size, --samples and --seqlen apply)";
  command
      .add_option("--algorithm", flags.algorithm,
                  "gptq, or rtn: round to nearest, which needs no --dataset and works on any checkpoint")
      ->check(CLI::IsMember({"gptq", "rtn"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--format", flags.format,
                  "How it is stored: gptq; or awq (4 bits, see --awq-version): then usually with --asym")
      ->check(CLI::IsMember({"gptq", "awq"}))
      ->capture_default_str()
      ->group(group);
  command.add_option("--bits", flags.bits, "Bits of a code")
      ->check(CLI::IsMember({2, 3, 4, 8}))
      ->capture_default_str()
      ->group(group);
  command.add_flag("--desc-act", flags.desc_act, "Quantize inputs in order of their activations: more exact")
      ->group(group);
  command
      .add_flag("--act-group-aware,!--no-act-group-aware", flags.act_group_aware,
                "Without --desc-act: groups of large activations first, and in a group its columns (default)")
      ->group(group);
  command.add_flag("--static-groups", flags.static_groups, "With --desc-act: keep groups of consecutive inputs")
      ->group(group);
  command.add_flag("--asym", flags.asym, "Zero points per group instead of one in the middle")->group(group);
  command
      .add_option("--damp", flags.damp,
                  "Part of the mean diagonal added to the diagonal, raised where that is not enough")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str()
      ->group(group);
  command.add_option("--mse", flags.mse, "Shrink ranges to minimize the error to this power (2.4 is usual); 0: do not")
      ->check(CLI::Range(0.0, 8.0))
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--refine", flags.refine,
          "Passes in which codes and scales move to lower the loss further, once all are chosen; most at 2 and 3 "
          "bits (4 is plenty)")
      ->check(CLI::Range(0, 64))
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--true-sequential,!--no-true-sequential", flags.true_sequential,
                "Linears see inputs that come through those of their block quantized before them (default)")
      ->group(group);
}

}  // namespace nibble::cli
