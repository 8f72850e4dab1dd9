// AQLM in the quantize command.
#include <CLI/CLI.hpp>

#include "cli/quantize_flags.h"

namespace nibble::cli {

aqlm::QuantizerConfig aqlm_config(const QuantizeFlags& flags) {
  const AqlmFlags& f = flags.aqlm;
  aqlm::QuantizerConfig config;
  config.options.group = f.in_group_size;
  config.options.seed = f.seed;
  aqlm::parse_shape(f.shape, config.options);
  config.options.effort = aqlm::effort_of(aqlm::preset_from_name(f.preset).value_or(aqlm::Preset::standard));
  config.true_sequential = flags.gptq.true_sequential;
  return config;
}

void add_aqlm_flags(CLI::App& command, AqlmFlags& flags) {
  const char* const group =
      "AQLM (needs --dataset; --samples, --seqlen, --float-inputs and --no-true-sequential apply)";
  command.add_option("--aqlm", flags.shape, "KxN: K codebooks of 2^N words; each group of inputs is a sum of K words")
      ->capture_default_str()
      ->group(group);
  command.add_option("--in-group-size", flags.in_group_size, "Inputs in one word")
      ->check(CLI::IsMember({8, 16}))
      ->capture_default_str()
      ->group(group);
  command.add_option("--preset", flags.preset, "How long to search: fast, standard or best")
      ->check(CLI::IsMember({"fast", "standard", "best"}))
      ->capture_default_str()
      ->group(group);
  command.add_option("--seed", flags.seed, "Of the random words that k-means starts from")
      ->capture_default_str()
      ->group(group);
}

}  // namespace nibble::cli
