// AWQ in the quantize command.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "base/error.h"
#include "calib/awq_calibration.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

/// Fewer tokens than this say little about thousands of channels.
constexpr std::int64_t kFewTokens = 4096;

/// What the searches found, in one line.
std::string summary(const std::vector<AwqReport>& reports) {
  std::int64_t searched = 0, scaled = 0;
  double gain = 0;
  for (const AwqReport& report : reports) {
    if (!report.searched) continue;
    ++searched;
    scaled += report.ratio >= 0 ? 1 : 0;
    if (report.loss > 0 && report.plain_loss > 0) gain += std::log(report.loss / report.plain_loss);
  }
  if (searched == 0) return "no norm, linear or activation of this model can take factors: clipped and rounded";
  return cat(scaled, " of ", searched, " inputs scaled; squared error of the outputs ",
             fixed(100 * std::exp(gain / static_cast<double>(searched)), 1), " % of that of plain rounding");
}

void print_search(const std::vector<AwqReport>& reports, const std::vector<std::string>& rounded) {
  std::cout << "search    " << summary(reports) << '\n';
  for (const std::string& module : rounded)
    std::cout << "note      " << module << ": no token reached it, rounded to nearest\n";
}

}  // namespace

std::unique_ptr<awq::Quantizer> awq_quantizer(QuantizeFlags& flags, std::shared_ptr<const Checkpoint> source,
                                              Exec& exec) {
  if (flags.group_size != -1 && flags.group_size < 8)
    throw bad_input("--group-size: ", flags.group_size, " (AWQ has multiples of 8, and -1 for all inputs)");
  awq::QuantizerConfig config;
  config.options.group = flags.group_size;
  config.options.duo = flags.awq.duo;
  config.options.clip = flags.awq.clip;
  config.variant = awq::variant_named(flags.awq.version);
  AwqModules modules = awq_modules(std::move(source), exec);
  config.activations = std::move(modules.activations);
  config.never = std::move(modules.routers);
  flags.selection.only = std::move(modules.linears);
  return std::make_unique<awq::Quantizer>(std::move(config));
}

std::int64_t awq_gram_bytes(std::shared_ptr<const Checkpoint> source, Exec& exec) {
  return awq_modules(std::move(source), exec).gram_bytes;
}

AwqLoss awq_loss(const QuantizeFlags& flags) { return flags.awq.loss == "output" ? AwqLoss::output : AwqLoss::gram; }

std::unique_ptr<Journal> calibrate_awq(const QuantizeFlags& flags, const QuantizationPlan& plan,
                                       std::shared_ptr<const Checkpoint> source, awq::Quantizer& quantizer,
                                       QuantizeOptions& options, Exec& exec, ProgressBar& bar) {
  CalibrationJob job = start_job(flags, *source, kFewTokens, options, exec);
  AwqTask task;
  task.source = std::move(source);
  task.modules = plan.modules;
  task.sequences = job.sequences;
  task.loss = awq_loss(flags);
  task.remember_bytes = flags.job.remember_bytes;
  task.journal = job.journal.get();
  task.fallback = flags.job.fallback;
  if (flags.job.spill) task.spill = Journal::folder_of(flags.out);
  std::vector<AwqReport> reports;
  task.on_step = [&](const AwqReport& report) { reports.push_back(report); };
  std::vector<std::string> rounded;
  task.on_module = [&](const ModuleReport& report) {
    if (report.rounded) rounded.push_back(report.module);
  };
  awq_quantize(task, quantizer, exec, bar.callback());
  bar.clear();
  if (!flags.json) print_search(reports, rounded);
  add_job_records(flags, job, options);
  return std::move(job.journal);
}

void add_awq_flags(CLI::App& command, AwqFlags& flags) {
  const char* const group = "AWQ, 4 bits (needs --dataset; --group-size, --samples and --seqlen apply)";
  command.add_option("--awq-version", flags.version, "How the tensors lie: what AutoAWQ calls version")
      ->check(CLI::IsMember({"gemm", "gemv", "gemv_fast", "llm-awq"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_option(
          "--awq-loss", flags.loss,
          "What the search minimizes: gram, the error of the linears' outputs from their inputs' statistics; or "
          "output, that of the attention's and MLP's, by running them, as AutoAWQ does: slower")
      ->check(CLI::IsMember({"gram", "output"}))
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--duo-scaling,!--no-duo-scaling", flags.duo,
                "Factors from activations and weights (default), or from activations alone")
      ->group(group);
  command.add_flag("--clip,!--no-clip", flags.clip, "Search for ranges of groups (default)")->group(group);
}

}  // namespace nibble::cli
