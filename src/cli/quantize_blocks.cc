// Methods that calibrate block by block, in the quantize command.
#include <iostream>

#include "base/error.h"
#include "calib/block_quantizer.h"
#include "calib/dataset.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

/// Fewer tokens than this leave the matrices of a few thousand inputs to the damping.
constexpr std::int64_t kFewTokens = 16384;

}  // namespace

bool calibrates(const QuantizeFlags& flags, const SolvedQuantizer& quantizer) {
  return quantizer.needs_data() || !flags.dataset.empty();
}

void calibrate_blocks(const QuantizeFlags& flags, const QuantizationPlan& plan,
                      std::shared_ptr<const Checkpoint> source, SolvedQuantizer& quantizer, Exec& exec,
                      const ProgressCallback& progress) {
  BlockTask task;
  task.modules = plan.modules;
  task.source = source;
  if (!calibrates(flags, quantizer)) return plain_quantize(task, quantizer, exec, progress);
  if (flags.dataset.empty()) {
    throw bad_input("--method ", flags.method,
                    " needs --dataset: a file, or builtin for the small text that comes with nibble");
  }
  task.sequences = calibration_sequences(flags.dataset, flags.dataset_path, source->folder(),
                                         {.samples = flags.samples, .seqlen = flags.seqlen});
  exec.compute = compute_dtype("auto", *source);
  std::int64_t tokens = 0;
  for (const auto& ids : task.sequences) tokens += static_cast<std::int64_t>(ids.size());
  std::vector<ModuleReport> unusual;
  task.on_module = [&](const ModuleReport& report) {
    if (report.rounded || report.damp > flags.gptq.damp) unusual.push_back(report);
  };
  block_quantize(task, quantizer, exec, progress);
  if (flags.json) return;
  std::cout << "data      " << flags.dataset << ": " << task.sequences.size() << " sequences, " << tokens << " tokens"
            << (tokens < kFewTokens ? "; that is little, expect more error than need be" : "") << '\n';
  for (const ModuleReport& report : unusual) {
    std::cout << "note      " << report.module
              << (report.rounded ? ": no damping helped, rounded to nearest"
                                 : ": needed a damping of " + fixed(report.damp, 3))
              << '\n';
  }
}

}  // namespace nibble::cli
