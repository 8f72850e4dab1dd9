// What a dry run says of a job that calibrates: how long, how much disk, and what would be wasted.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <set>

#include "calib/dataset.h"
#include "calib/job_estimate.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

/// Two digits are more than an estimate has: "40 s", "12 min", "3.5 h".
std::string about(double seconds) {
  if (seconds < 90) return fixed(std::max(1.0, std::round(seconds)), 0) + " s";
  if (seconds < 5400) return fixed(std::round(seconds / 60), 0) + " min";
  return fixed(seconds / 3600, 1) + " h";
}

/// Settings that cost more than they give, one line each.
std::vector<std::string> wasteful(const QuantizeFlags& flags, const Sequences& sequences, std::int64_t tokens) {
  std::vector<std::string> notes;
  const GptqFlags& gptq = flags.gptq;
  if (flags.method == "gptq" && gptq.bits == 8) {
    notes.emplace_back("8 bits: rounding to nearest loses next to nothing (--weights int8), and needs no data");
    if (gptq.desc_act) notes.emplace_back("--desc-act with 8 bits: slower to run, for nothing that could be measured");
  }
  if (flags.method == "gptq" && flags.group_size == -1 && gptq.bits < 4) {
    notes.emplace_back("one scale per row at less than 4 bits loses much; --group-size 128 costs 0.16 bits per weight");
  }
  if (flags.method == "gptq" && gptq.static_groups && !gptq.desc_act) {
    notes.emplace_back("--static-groups does nothing without --desc-act");
  }
  if (flags.dataset.empty()) return notes;
  const auto count = static_cast<std::int64_t>(sequences.size());
  if (count < flags.samples) {
    notes.push_back(cat("the data has ", count, " sequences of the ", flags.samples, " asked for"));
  }
  std::set<std::int32_t> different;
  for (const auto& ids : sequences) different.insert(ids.begin(), ids.end());
  if (static_cast<std::int64_t>(different.size()) < std::min<std::int64_t>(64, tokens / 8)) {
    notes.push_back(
        cat("the data has only ", different.size(), " different tokens: statistics will be those of nothing real"));
  }
  return notes;
}

}  // namespace

void predict_job(const QuantizeFlags& flags, const QuantizationPlan& plan, std::shared_ptr<const Checkpoint> source,
                 SolvedQuantizer& quantizer, Exec& exec, Json& json) {
  Sequences sequences;
  std::int64_t tokens = flags.samples * flags.seqlen;  // without data: what it will be at most
  if (!flags.dataset.empty()) {
    sequences = calibration_data(flags, *source);
    tokens = token_count(sequences);
  }
  exec.compute = compute_dtype("auto", *source);
  JobEstimate estimate;
  if (flags.method == "awq") {
    AwqTask task;
    task.source = source;
    task.modules = plan.modules;
    task.loss = awq_loss(flags);
    estimate = estimate_job(task, dynamic_cast<awq::Quantizer&>(quantizer).config(), tokens, flags.seqlen, exec);
  } else {
    estimate =
        estimate_job(source, modules_in_blocks(plan), tokens, flags.seqlen, flags.job.remember_bytes, quantizer, exec);
  }
  if (flags.float_inputs > 0) estimate.observing *= 2;  // the float model runs beside the quantized one
  const std::vector<std::string> notes = wasteful(flags, sequences, tokens);
  if (flags.json) {
    Json::Array list;
    for (const std::string& note : notes) list.emplace_back(note);
    json.set("predicted_seconds", estimate.seconds());
    json.set("predicted_disk_bytes", plan.bytes_out + plan.quantized_bytes);
    json.set("calibration_tokens", tokens);
    json.set("warnings", std::move(list));
    return;
  }
  std::cout << "disk      " << byte_text(static_cast<double>(plan.bytes_out)) << ", and "
            << byte_text(static_cast<double>(plan.quantized_bytes)) << " beside it until the job is done\n"
            << "time      about " << about(estimate.seconds())
            << " on this machine as busy as it is now: the model runs " << about(estimate.observing) << " over "
            << tokens << " tokens, codes are chosen in " << about(estimate.solving) << '\n';
  for (const std::string& note : notes) std::cout << "warning   " << note << '\n';
}

}  // namespace nibble::cli
