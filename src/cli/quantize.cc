// nibble quantize: a float checkpoint in, a quantized checkpoint out.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/process_memory.h"
#include "base/stopwatch.h"
#include "calib/activation_scales.h"
#include "calib/block_quantizer.h"
#include "calib/dataset.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress_bar.h"
#include "cli/quantize_flags.h"
#include "cli/recipe.h"
#include "cli/table.h"
#include "quant/quantize_checkpoint.h"
#include "quant/quanto/quantizer.h"

namespace nibble::cli {
namespace {

using Flags = QuantizeFlags;

quanto::Config quanto_config(const Flags& flags) {
  quanto::Config config;
  const auto qtype = quanto::qtype_from_name(flags.weights);
  if (!qtype) throw bad_input("--weights: unknown type ", printable(flags.weights));
  config.weights.qtype = *qtype;
  config.weights.optimizer = quanto::optimizer_from_name(flags.optimizer).value_or(quanto::Optimizer::automatic);
  const std::int64_t group = flags.group_size;
  if (group != 32 && group != 64 && group != 96 && group != 128) {
    throw bad_input("--group-size: ", group, " (Quanto has 32, 64, 96 and 128)");
  }
  config.weights.group_size = group;
  config.weights.zero_point = flags.zero_point;
  config.weights.exact_shift = flags.exact_shift;
  if (flags.selection.recipe) config.rules = quanto::weight_rules(*flags.selection.recipe, config.weights);
  if (flags.activations != "none") {
    config.activations = quanto::qtype_from_name(flags.activations);
    if (!config.activations) throw bad_input("--activations: unknown type ", printable(flags.activations));
    if (flags.dataset.empty()) throw bad_input("--activations needs --dataset FILE to calibrate on");
  } else if (!flags.dataset.empty()) {
    throw bad_input("--dataset calibrates activations: name their type with --activations");
  }
  return config;
}

std::string sizes(std::int64_t from, std::int64_t to) {
  return byte_text(static_cast<double>(from)) + " -> " + byte_text(static_cast<double>(to));
}

void print_plan(const QuantizationPlan& plan) {
  std::vector<std::vector<std::string>> rows;
  for (const PlannedTensor& tensor : plan.tensors) {
    const View& view = tensor.source->view;
    const bool copied = tensor.module.empty();
    const double bits =
        view.empty() ? 0 : 8.0 * static_cast<double>(tensor.bytes_out) / static_cast<double>(view.count());
    rows.push_back({printable(copied ? tensor.source->name : tensor.module + ".weight"), to_string(view.shape()),
                    std::string(name_of(view.dtype())), copied ? "kept" : tensor.scheme, fixed(bits, 3),
                    byte_text(static_cast<double>(tensor.bytes_in)), byte_text(static_cast<double>(tensor.bytes_out))});
  }
  std::cout << markdown_table({{"tensor", false},
                               {"shape", false},
                               {"dtype", false},
                               {"becomes", false},
                               {"bits/weight", true},
                               {"size", true},
                               {"new size", true}},
                              rows)
            << '\n';
}

void print_totals(const Flags& flags, const QuantizationPlan& plan) {
  for (const std::string& note : plan.notes) std::cout << "note      " << note << '\n';
  std::cout << "model     " << flags.model << ": " << count_text(static_cast<double>(plan.parameters))
            << " parameters, " << plan.modules.size() << " modules to quantize with "
            << count_text(static_cast<double>(plan.quantized)) << '\n'
            << "size      " << sizes(plan.bytes_in, plan.bytes_out) << ", " << fixed(plan.bits_per_weight(), 3)
            << " bits per quantized weight\n"
            << "memory    at most " << byte_text(static_cast<double>(plan.peak_bytes)) << '\n'
            << std::flush;
}

Json json_of(const Flags& flags, const QuantizationPlan& plan) {
  Json::Array tensors, notes;
  for (const PlannedTensor& tensor : plan.tensors) {
    Json::Array shape;
    for (const std::int64_t dim : tensor.source->view.shape()) shape.emplace_back(dim);
    tensors.push_back(Json::Object{{"tensor", tensor.source->name},
                                   {"shape", std::move(shape)},
                                   {"dtype", name_of(tensor.source->view.dtype())},
                                   {"module", tensor.module.empty() ? Json() : Json(tensor.module)},
                                   {"scheme", tensor.module.empty() ? Json() : Json(tensor.scheme)},
                                   {"bytes", tensor.bytes_in},
                                   {"new_bytes", tensor.bytes_out}});
  }
  for (const std::string& note : plan.notes) notes.emplace_back(note);
  return Json::Object{
      {"model", flags.model},
      {"out", flags.out.empty() ? Json() : Json(flags.out)},
      {"method", flags.method},
      {"weights", flags.method == "quanto" ? Json(flags.weights) : Json()},
      {"activations", flags.method == "quanto" ? Json(flags.activations) : Json()},
      {"rotate_seed", flags.rotation.rotate ? Json(static_cast<std::int64_t>(flags.rotation.seed)) : Json()},
      {"dry_run", flags.dry_run},
      {"parameters", plan.parameters},
      {"quantized_parameters", plan.quantized},
      {"bits_per_weight", plan.bits_per_weight()},
      {"bytes", plan.bytes_in},
      {"new_bytes", plan.bytes_out},
      {"predicted_peak_bytes", plan.peak_bytes},
      {"notes", std::move(notes)},
      {"tensors", std::move(tensors)}};
}

/// The scales of all modules, from a run over the data set with the weights quantized as they will be.
std::map<std::string, quanto::ActivationScales> calibrate(const Flags& flags, const quanto::Config& config,
                                                          const Checkpoint& source, Exec& exec,
                                                          const ProgressCallback& progress) {
  CalibrationOptions options;
  options.momentum = flags.momentum;
  const auto sequences =
      read_dataset(flags.dataset, source.folder(), {.samples = flags.samples, .seqlen = flags.seqlen});
  exec.compute = compute_dtype("auto", source);
  const CalibrationTask task{source, config, flags.selection, flags.out + ".calibration.partial"};
  return calibrate_activations(task, sequences, options, exec, progress);
}

/// What the run took, beside what it made.
void report(const Flags& flags, const QuantizationPlan& plan, const QuantizationError& error, double seconds,
            Json& json) {
  if (flags.json) {
    json.set("seconds", seconds);
    json.set("relative_error", error.relative());
    json.set("largest_error", error.largest);
    json.set("peak_bytes", peak_resident_bytes());
    return;
  }
  std::cout << "error     " << fixed(100 * error.relative(), 3) << " % of the weights' norm, at most "
            << fixed(error.largest, 6) << '\n'
            << "written   " << flags.out << " in " << fixed(seconds, 2) << " s ("
            << fixed(static_cast<double>(plan.bytes_in) / seconds / 1e9, 2) << " GB/s), read back and checked; "
            << "peak memory " << byte_text(static_cast<double>(peak_resident_bytes())) << '\n';
}

/// The method's quantizer; adds what it asks of the choice of modules to flags.selection.
std::unique_ptr<ModuleQuantizer> make_quantizer(Flags& flags, const quanto::Config& config,
                                                const std::shared_ptr<const Checkpoint>& source, Exec& exec) {
  if (is_bnb(flags.method)) return bnb_quantizer(flags);
  if (flags.method == "quanto") return std::make_unique<quanto::Quantizer>(config);
  if (flags.method == "awq") return awq_quantizer(flags, source, exec);
  std::unique_ptr<SolvedQuantizer> quantizer;
  if (flags.method == "aqlm") {
    quantizer = std::make_unique<aqlm::Quantizer>(aqlm_config(flags));
  } else {
    quantizer = grid_quantizer(flags);
  }
  if (calibrates(flags, *quantizer)) {
    flags.selection.only = block_linears(source, exec);
    const bool head = flags.selection.lm_head || !flags.selection.include.empty();
    if (head && quantizer->scheme().name == "gptq") flags.selection.only->insert({"lm_head", "embed_out"});
  }
  if (flags.mixed.target_bpw) {
    choose_bits(flags, source, exec);
    return grid_quantizer(flags);
  }
  return quantizer;
}

/// Calibration, for the methods that have one; the journal, if it keeps one, is to be finished after the output.
std::unique_ptr<Journal> prepare(const Flags& flags, const quanto::Config& config, const QuantizationPlan& plan,
                                 const std::shared_ptr<const Checkpoint>& source,
                                 std::unique_ptr<ModuleQuantizer>& quantizer, QuantizeOptions& options, Exec& exec,
                                 ProgressBar& bar) {
  if (config.activations) {
    quantizer = std::make_unique<quanto::Quantizer>(config, calibrate(flags, config, *source, exec, bar.callback()));
  }
  if (flags.method == "awq") {
    return calibrate_awq(flags, plan, source, dynamic_cast<awq::Quantizer&>(*quantizer), options, exec, bar);
  }
  auto* solved = dynamic_cast<SolvedQuantizer*>(quantizer.get());
  return solved == nullptr ? nullptr : calibrate_blocks(flags, plan, source, *solved, options, exec, bar);
}

/// Makes the output and checks it.
void carry_out(const Flags& flags, const quanto::Config& config, const QuantizationPlan& plan,
               const std::shared_ptr<const Checkpoint>& source, std::unique_ptr<ModuleQuantizer> quantizer,
               QuantizeOptions& options, Exec& exec, Json& json) {
  ProgressBar bar;
  const Stopwatch watch;
  const std::unique_ptr<Journal> journal = prepare(flags, config, plan, source, quantizer, options, exec, bar);
  const QuantizationError error = quantize_checkpoint(*source, plan, *quantizer, options, exec.pool, bar.callback());
  if (journal != nullptr) journal->finish();
  bar.clear();
  report(flags, plan, error, watch.seconds(), json);
  quantizer.reset();                                                 // two models are going to be in memory
  const bool checks = flags.job.check_kl || !flags.dataset.empty();  // what needed data has more to lose
  if (checks && !flags.job.no_check_kl) check_divergence(flags, plan, flags.original, exec, bar, json);
}

struct Planned {
  std::unique_ptr<ModuleQuantizer> quantizer;
  QuantizationPlan plan;
};

Planned plan_job(Flags& flags, const quanto::Config& config, const std::shared_ptr<const Checkpoint>& source,
                 Exec& exec) {
  Planned job;
  job.quantizer = make_quantizer(flags, config, source, exec);
  job.plan = plan_quantization(*source, *job.quantizer, flags.selection, exec.pool.size());
  if (flags.method == "gptq") note_torn_units(job.plan, *source, job.plan.notes);
  plan_memory(flags, job.plan, source, *job.quantizer, exec);
  return job;
}

/// The model to quantize; with --rotate another than flags.original. Adds to `notes`.
std::shared_ptr<const Checkpoint> source_of(const Flags& flags, const quanto::Config& config,
                                            std::vector<std::string>& notes, Exec& exec) {
  if (!flags.rotation.rotate) return flags.original;
  const Rotation rotation(flags.original, exec);
  notes = rotation.notes();
  notes.push_back(cat("rotated weights take ", byte_text(static_cast<double>(rotation.bytes())),
                      " of disk beside the output until the job is done"));
  if (flags.dry_run && flags.mixed.target_bpw) {
    throw bad_input(
        "--target-bpw measures the rotated model, which a dry run does not make: leave out --rotate or --dry-run");
  }
  if (flags.dry_run) return rotation.preview();
  Flags trial = flags;
  trial.mixed.target_bpw.reset();
  plan_job(trial, config, rotation.preview(), exec);  // what cannot be done is refused before the work
  return rotated(rotation, flags.rotation, flags.out, {}, exec);
}

void run_quantize(Flags flags) {
  if (flags.out.empty() && !flags.dry_run) throw bad_input("-o OUT is missing (or --dry-run)");
  flags.method = method_of(flags);
  read_module_recipe(flags);
  const bool quanto = flags.method == "quanto";
  if (!quanto && flags.activations != "none") throw bad_input("--activations is for --method quanto");
  const quanto::Config config = quanto ? quanto_config(flags) : quanto::Config{};
  Compute compute(flags.compute);
  Exec& exec = compute.exec();
  flags.original = Checkpoint::open(flags.model);
  if (!flags.out.empty()) {
    check_output_folder(flags.original->folder(), flags.out, flags.force || Journal::any_writing(flags.out));
  }
  QuantizeOptions options;
  options.out = flags.out;
  options.force = flags.force;
  options.max_shard_bytes = parse_byte_size(flags.max_shard_size);

  std::vector<std::string> notes;
  const std::shared_ptr<const Checkpoint> source = source_of(flags, config, notes, exec);
  auto [quantizer, plan] = plan_job(flags, config, source, exec);
  plan.notes.insert(plan.notes.begin(), notes.begin(), notes.end());
  if (!flags.json && flags.dry_run) print_plan(plan);
  if (!flags.json) print_totals(flags, plan);
  Json json = flags.json ? json_of(flags, plan) : Json();
  if (flags.json && !flags.mixed.chosen_bits.is_null()) json.set("chosen_bits", flags.mixed.chosen_bits);
  if (auto* solved = dynamic_cast<SolvedQuantizer*>(quantizer.get());
      flags.dry_run && solved != nullptr && calibrates(flags, *solved)) {
    predict_job(flags, plan, source, *solved, exec, json);
  }
  if (!flags.dry_run) carry_out(flags, config, plan, source, std::move(quantizer), options, exec, json);
  if (flags.json) print_json(json);
}

void add_quanto_flags(CLI::App& command, Flags& flags) {
  command.add_option("--method", flags.method, "quanto; bitsandbytes: bnb-nf4, bnb-fp4, llm-int8; gptq; awq; aqlm")
      ->check(CLI::IsMember({"quanto", "bnb-nf4", "bnb-fp4", "llm-int8", "gptq", "awq", "aqlm"}))
      ->capture_default_str();
  command.add_option("--weights", flags.weights, "Type of the weights (float8 is float8_e4m3fn)")
      ->check(CLI::IsMember({"int8", "int4", "int2", "float8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"}))
      ->capture_default_str();
  command
      .add_option("--optimizer", flags.optimizer,
                  "How scales are chosen: absmax (8 bits), max or hqq (int4, int2); auto: absmax and max")
      ->check(CLI::IsMember({"auto", "absmax", "max", "hqq"}))
      ->capture_default_str();
  command
      .add_option("--group-size", flags.group_size,
                  "Largest group of int4 and int2; 96, 64 and 32 are tried after it. optimum-quanto reads only 128. "
                  "gptq, awq: inputs with one scale, or -1 for all")
      ->capture_default_str();
  command.add_flag("--zero-point", flags.zero_point,
                   "Integer shifts for int4 and int2: zero is exact, the rest less so");
  command.add_flag("--exact-shift", flags.exact_shift,
                   "Keep shifts exact where optimum-quanto rounds them on saving (bf16 int4, groups of 128)");
}

void add_calibration_flags(CLI::App& command, Flags& flags) {
  command.add_option("--activations", flags.activations, "Type of the activations; needs --dataset")
      ->check(CLI::IsMember({"none", "int8", "float8", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"}))
      ->capture_default_str();
  command.add_option("--dataset", flags.dataset,
                     "Calibration text: .txt, .jsonl with a field \"text\", or .json {\"ids\": [[...]]}; gptq, awq "
                     "and aqlm also: builtin, or c4, c4-new, wikitext2, ptb with --dataset-path");
  command.add_option("--dataset-path", flags.dataset_path, "Where a data set that --dataset names lies");
  command.add_option("--samples,--nsamples", flags.samples, "Calibration sequences used, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--seqlen", flags.seqlen, "Tokens per calibration sequence, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      .add_option("--float-inputs", flags.float_inputs,
                  "gptq, aqlm: make up for what earlier blocks lost, by this part of the way (as GPTAQ and QEP do)")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--momentum", flags.momentum, "Of output scales (input scales always use 0.9)")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
}

}  // namespace

void add_quantize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("quantize", "Quantize a checkpoint's linear layers");
  const auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "Folder, file, or org/name[@revision] in the Hugging Face cache")
      ->required();
  command->add_option("-o,--out", flags->out, "Folder to write");
  add_quanto_flags(*command, *flags);
  add_bnb_flags(*command, flags->bnb);
  add_gptq_flags(*command, flags->gptq);
  add_awq_flags(*command, flags->awq);
  add_aqlm_flags(*command, flags->aqlm);
  add_rotate_flags(*command, flags->rotation);
  add_mixed_flags(*command, flags->mixed);
  add_job_flags(*command, flags->job);
  add_check_flags(*command, flags->job);
  add_calibration_flags(*command, *flags);
  command->add_option("--include", flags->selection.include,
                      "Quantize only modules that match this pattern (repeatable)");
  command->add_option("--exclude", flags->selection.exclude, "Keep modules that match this pattern (repeatable)");
  command->add_flag("--quantize-lm-head", flags->selection.lm_head,
                    "Also quantize the output head, as optimum-quanto's own quantize() does");
  command->add_option("--max-shard-size", flags->max_shard_size, "Largest file")->capture_default_str();
  command->add_flag("--force", flags->force, "Replace the model that is in OUT");
  command->add_flag("--dry-run", flags->dry_run, "Print what would be done, tensor by tensor, and write nothing");
  command->add_flag("--json", flags->json, "Print one JSON object");
  add_compute_flags(*command, flags->compute);
  command->footer(
      "Any checkpoint works, whether nibble can run the model or not. Embeddings and norms are never quantized; the\n"
      "output head (lm_head) is kept unless asked for, as with Transformers' QuantoConfig. Patterns are shell "
      "patterns\n"
      "on module names. The result is read back and checked before success is reported.\n"
      "Examples:\n"
      "  nibble quantize models/demo -o out/int4 --weights int4\n"
      "  nibble quantize org/name -o out/int8 --weights int8 --exclude '*.down_proj' --dry-run\n"
      "  nibble quantize org/name -o out/float8 --weights float8 --quantize-lm-head\n"
      "  nibble quantize org/name -o out/nf4 --method bnb-nf4 --double-quant\n"
      "  nibble quantize org/name -o out/int8 --load-in-8bit\n"
      "  nibble quantize models/demo -o out/gptq --method gptq --bits 4 --group-size 128 --dataset builtin\n"
      "  nibble quantize models/demo -o out/mixed --method gptq --dataset builtin --module-recipe recipe.json\n"
      "  nibble quantize models/demo -o out/awq --method awq --group-size 64 --dataset builtin\n"
      "  nibble quantize org/name -o out/gptq3 --method gptq --bits 3 --group-size -1 --rotate --dataset builtin\n"
      "  nibble quantize org/name -o out/aqlm --method aqlm --aqlm 2x8 --dataset builtin\n"
      "  nibble quantize models/demo -o out/w8a8 --weights int8 --activations int8 \\\n"
      "      --dataset models/demo/calibration_ids.json --samples 128 --seqlen 512");
  command->callback([flags, command] {
    // What says where and how fast, but not what: the same result whatever it is.
    flags->job.recipe = recipe_of(
        *command, {"help", "out", "dataset", "dataset-path", "module-recipe", "max-shard-size", "force", "dry-run",
                   "json", "threads", "resume", "fallback", "check-kl", "no-check-kl", "max-memory", "max-kl"});
    run_quantize(*flags);
  });
}

}  // namespace nibble::cli
