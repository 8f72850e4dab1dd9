// GPTQ in the quantize command.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "calib/dataset.h"
#include "calib/gptq_calibration.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

/// Fewer tokens than this leave the matrices of a few thousand inputs to the damping.
constexpr std::int64_t kFewTokens = 16384;

}  // namespace

gptq::QuantizerConfig gptq_config(const QuantizeFlags& flags) {
  const GptqFlags& f = flags.gptq;
  gptq::QuantizerConfig config;
  config.options.bits = f.bits;
  config.options.group = flags.group_size;
  config.options.sym = !f.asym;
  config.options.desc_act = f.desc_act;
  config.options.static_groups = f.static_groups;
  config.options.damp = f.damp;
  config.options.mse_norm = f.mse;
  config.true_sequential = f.true_sequential;
  return config;
}

void calibrate_gptq(const QuantizeFlags& flags, const QuantizationPlan& plan, std::shared_ptr<const Checkpoint> source,
                    gptq::Quantizer& quantizer, Exec& exec, const ProgressCallback& progress) {
  if (flags.dataset.empty()) {
    throw bad_input("--method gptq needs --dataset: a file, or builtin for the small text that comes with nibble");
  }
  GptqCalibration task;
  task.modules = plan.modules;
  task.sequences = calibration_sequences(flags.dataset, flags.dataset_path, source->folder(),
                                         {.samples = flags.samples, .seqlen = flags.seqlen});
  task.source = source;
  exec.compute = compute_dtype("auto", *source);
  std::int64_t tokens = 0;
  for (const auto& ids : task.sequences) tokens += static_cast<std::int64_t>(ids.size());
  std::vector<GptqReport> unusual;
  task.on_module = [&](const GptqReport& report) {
    if (report.rounded || report.damp > flags.gptq.damp) unusual.push_back(report);
  };
  gptq_calibrate(task, quantizer, exec, progress);
  if (flags.json) return;
  std::cout << "data      " << flags.dataset << ": " << task.sequences.size() << " sequences, " << tokens << " tokens"
            << (tokens < kFewTokens ? "; that is little, expect more error than need be" : "") << '\n';
  for (const GptqReport& report : unusual) {
    std::cout << "note      " << report.module
              << (report.rounded ? ": no damping helped, rounded to nearest"
                                 : ": needed a damping of " + fixed(report.damp, 3))
              << '\n';
  }
}

void add_gptq_flags(CLI::App& command, GptqFlags& flags) {
  const char* const group = "GPTQ (needs --dataset; --group-size, --samples and --seqlen apply)";
  command.add_option("--bits", flags.bits, "Bits of a code")
      ->check(CLI::IsMember({2, 3, 4, 8}))
      ->capture_default_str()
      ->group(group);
  command.add_flag("--desc-act", flags.desc_act, "Quantize inputs in order of their activations: more exact")
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
      .add_flag("--true-sequential,!--no-true-sequential", flags.true_sequential,
                "Linears see inputs that come through those of their block quantized before them (default)")
      ->group(group);
}

}  // namespace nibble::cli
