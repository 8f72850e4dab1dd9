// Methods that calibrate block by block, in the quantize command: the life of a job that may take hours.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <limits>

#include "base/error.h"
#include "base/process_memory.h"
#include "base/sha256.h"
#include "calib/block_quantizer.h"
#include "calib/dataset.h"
#include "calib/head_quantizer.h"
#include "checkpoint/fingerprint.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

/// Fewer tokens than this leave the matrices of a few thousand inputs to the damping.
constexpr std::int64_t kFewTokens = 16384;

std::string hash_of(const Sequences& sequences) {
  std::vector<std::int64_t> all;
  for (const auto& ids : sequences) {
    all.push_back(static_cast<std::int64_t>(ids.size()));
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return sha256_hex(std::as_bytes(std::span(all)));
}

/// Everything that decides the bytes of the result. Kernels of other processors round otherwise.
Json identity_of(const QuantizeFlags& flags, const Checkpoint& source, const Sequences& sequences, ThreadPool& pool) {
  return Json::Object{{"nibble", NIBBLE_VERSION},
                      {"cpu", cpu_features()},
                      {"model_sha256", model_fingerprint(source, pool)},
                      {"data_sha256", hash_of(sequences)},
                      {"recipe", flags.job.recipe}};
}

/// What differs between two identities: "model, recipe".
std::string difference(const Json& a, const Json& b) {
  std::string out;
  for (const auto& [key, name] :
       {std::pair("nibble", "version"), std::pair("cpu", "processor"), std::pair("model_sha256", "model"),
        std::pair("data_sha256", "calibration data"), std::pair("recipe", "recipe")}) {
    const Json *x = a.find(key), *y = b.find(key);
    if (x == nullptr || y == nullptr || !(*x == *y)) out += (out.empty() ? "" : ", ") + std::string(name);
  }
  return out;
}

/// Strings only, as safetensors wants them. Paths stay out: they are nobody else's business.
Json metadata_of(const QuantizeFlags& flags, const Json& identity, const Sequences& sequences) {
  const std::string name = is_dataset_name(flags.dataset) ? flags.dataset : "a file";
  return Json::Object{
      {"format", "pt"},
      {"nibble_version", NIBBLE_VERSION},
      {"nibble_recipe", flags.job.recipe.dump()},
      {"nibble_data", cat(name, ": ", sequences.size(), " sequences, ", token_count(sequences), " tokens")},
      {"nibble_data_sha256", identity.find("data_sha256")->string("")},
      {"nibble_source_sha256", identity.find("model_sha256")->string("")}};
}

void print_journal(const QuantizeFlags& flags, const Journal& journal, const Json& identity) {
  for (const Json& other : journal.others()) {
    std::cout << "note      " << Journal::folder_of(flags.out).string() << " also holds an unfinished job with another "
              << difference(identity, other) << ": this one starts anew, the other stays until this one is done\n";
  }
  if (journal.finished_units() > 0) {
    std::cout << "resumed   " << journal.finished_units() << " finished parts of an earlier run are used (--no-resume "
              << "starts anew)\n";
  }
  std::cout << std::flush;
}

void print_unusual(const std::vector<ModuleReport>& unusual) {
  for (const ModuleReport& report : unusual) {
    std::cout << "note      " << report.module
              << (report.rounded ? ": no damping helped, rounded to nearest"
                                 : ": needed a damping of " + fixed(report.damp, 3))
              << '\n';
  }
}

/// Whether activations lie on the disk, and how much is remembered inside blocks.
void plan_activations(QuantizeFlags& flags, QuantizationPlan& plan, std::int64_t limit,
                      const std::shared_ptr<const Checkpoint>& source, bool true_sequential, Exec& exec) {
  const bool float_inputs = flags.float_inputs > 0;
  const std::int64_t between = activation_bytes(source, flags.samples, flags.seqlen, float_inputs, exec);
  plan.peak_bytes += calibration_bytes(source, flags.samples, flags.seqlen, float_inputs, exec);
  std::int64_t room = std::min(limit - plan.peak_bytes, physical_bytes() / kPartForRemembering);
  if (plan.peak_bytes > limit) {
    flags.job.spill = true;
    plan.peak_bytes -= between;
    plan.notes.emplace_back("activations between blocks lie on the disk, for --max-memory");
    room = between;
  }
  const bool remembers = flags.method == "awq" ? flags.awq.loss == "gram" : true_sequential;
  if (!remembers) return;
  flags.job.remember_bytes = remembered_bytes(source, flags.samples, flags.seqlen, float_inputs, room, exec);
  if (!flags.job.spill) plan.peak_bytes += flags.job.remember_bytes;
}

/// The head, if the plan quantizes one: it is not for those who work on blocks.
const PlannedTensor* planned_head(const QuantizationPlan& plan) {
  const auto found = std::find_if(plan.tensors.begin(), plan.tensors.end(),
                                  [](const PlannedTensor& tensor) { return is_output_head(tensor.module); });
  return found == plan.tensors.end() ? nullptr : &*found;
}

}  // namespace

std::vector<std::string> modules_in_blocks(const QuantizationPlan& plan) {
  std::vector<std::string> modules = plan.modules;
  std::erase_if(modules, [](const std::string& module) { return is_output_head(module); });
  return modules;
}

bool calibrates(const QuantizeFlags& flags, const SolvedQuantizer& quantizer) {
  return quantizer.needs_data() || !flags.dataset.empty();
}

void plan_memory(QuantizeFlags& flags, QuantizationPlan& plan, std::shared_ptr<const Checkpoint> source,
                 const ModuleQuantizer& quantizer, Exec& exec) {
  const std::int64_t limit =
      flags.job.max_memory.empty() ? std::numeric_limits<std::int64_t>::max() : parse_byte_size(flags.job.max_memory);
  const auto* solved = dynamic_cast<const SolvedQuantizer*>(&quantizer);
  if (solved != nullptr) plan.peak_bytes += plan.quantized_bytes;  // all of the result is held until it is written
  if (flags.method == "awq") plan.peak_bytes += awq_gram_bytes(source, exec);
  if (solved != nullptr && calibrates(flags, *solved)) {
    plan_activations(flags, plan, limit, source, solved->true_sequential(), exec);
    // The check at the end holds two models, and logits.
    const std::int64_t check = plan.bytes_in + plan.bytes_out + (std::int64_t{128} << 20);
    if (check > limit && !flags.job.no_check_kl) {
      flags.job.no_check_kl = true;
      plan.notes.emplace_back("the result is not compared with its source, for --max-memory");
    }
    if (!flags.job.no_check_kl) plan.peak_bytes = std::max(plan.peak_bytes, check);
  }
  if (plan.peak_bytes > limit) {
    throw bad_input("--max-memory ", flags.job.max_memory, ": ", byte_text(static_cast<double>(plan.peak_bytes)),
                    " are needed", flags.job.spill ? ", with activations on the disk" : "");
  }
}

CalibrationJob start_job(const QuantizeFlags& flags, const Checkpoint& source, std::int64_t few,
                         QuantizeOptions& options, Exec& exec) {
  return_large_blocks();
  CalibrationJob job;
  job.sequences = calibration_data(flags, source);
  job.identity = identity_of(flags, *flags.original, job.sequences, exec.pool);
  job.journal = std::make_unique<Journal>(flags.out, job.identity, flags.job.resume);
  // What a run of this very job had begun to write is no reason to stop it.
  options.force = options.force || job.journal->writing();
  check_output_folder(source.folder(), flags.out, options.force);
  if (!flags.json) print_data(flags, job.sequences, few);
  if (!flags.json) print_journal(flags, *job.journal, job.identity);
  exec.compute = compute_dtype("auto", source);
  return job;
}

void add_job_records(const QuantizeFlags& flags, CalibrationJob& job, QuantizeOptions& options) {
  job.journal->set_writing();
  options.metadata = metadata_of(flags, job.identity, job.sequences);
  options.files.emplace_back("quantize.jsonl", job.journal->log_text());
}

std::unique_ptr<Journal> calibrate_blocks(const QuantizeFlags& flags, const QuantizationPlan& plan,
                                          std::shared_ptr<const Checkpoint> source, SolvedQuantizer& quantizer,
                                          QuantizeOptions& options, Exec& exec, ProgressBar& bar) {
  BlockTask task;
  task.source = source;
  task.modules = modules_in_blocks(plan);
  HeadTask head_task{.source = source, .module = {}, .weight = nullptr, .sequences = {}};
  const PlannedTensor* head = planned_head(plan);
  if (head != nullptr) head_task.module = head->module, head_task.weight = head->source;
  if (!calibrates(flags, quantizer)) {
    plain_quantize(task, quantizer, exec, bar.callback());
    if (head != nullptr) quantize_head(head_task, quantizer, exec, bar.callback());
    return nullptr;
  }
  CalibrationJob job = start_job(flags, *source, kFewTokens, options, exec);
  task.sequences = job.sequences;
  std::vector<ModuleReport> unusual;
  task.on_module = [&](const ModuleReport& report) {
    if (report.rounded || report.damp > flags.gptq.damp) unusual.push_back(report);
  };
  task.journal = job.journal.get();
  task.fallback = flags.job.fallback;
  if (flags.job.spill) task.spill = Journal::folder_of(flags.out);
  task.float_inputs = flags.float_inputs;
  task.remember_bytes = flags.job.remember_bytes;
  block_quantize(task, quantizer, exec, bar.callback());
  if (head != nullptr) {  // not in the journal: one weight is soon solved again
    head_task.sequences = task.sequences;
    const ModuleReport report = quantize_head(head_task, quantizer, exec, bar.callback());
    job.journal->log(report);
    task.on_module(report);
  }
  bar.clear();
  if (!flags.json) print_unusual(unusual);
  add_job_records(flags, job, options);
  return std::move(job.journal);
}

void add_job_flags(CLI::App& command, JobFlags& flags) {
  const char* const group = "Long jobs (methods that calibrate)";
  command
      .add_flag("--resume,!--no-resume", flags.resume,
                "Go on where the same command was killed (default); what it had finished lies in OUT.quantize.partial")
      ->group(group);
  command
      .add_flag("--fallback,!--no-fallback", flags.fallback,
                "Round a module to nearest when nothing else is numerically sound (default); else that is an error")
      ->group(group);
  command
      .add_option("--max-memory", flags.max_memory,
                  "Most memory to use, for example 4GB; activations go to the disk beside the output when they do not "
                  "fit")
      ->group(group);
}

}  // namespace nibble::cli
