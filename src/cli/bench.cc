// nibble bench: llama-bench's table and field names, with peak memory and batches.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <utility>

#include "base/error.h"
#include "cli/bench_run.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress_bar.h"
#include "cli/table.h"
#include "quant/scheme.h"

namespace nibble::cli {
namespace {

struct Flags {
  std::vector<std::string> models;
  std::string prompt = "512", generate = "128", depth = "0", batch = "1", threads = "0";
  std::vector<std::string> pairs, lora;
  std::string dtype = "auto", kv_dtype = "f32", device = "cpu", output = "md";
  int repetitions = 5;
  bool no_warmup = false;
};

/// What is the same in all lines of one model.
struct Subject {
  std::string name, type;
  ModelInfo info;
  DType compute = DType::f32, kv = DType::f32;
};

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

/// Tests of one model, in llama-bench's order: prompts, generations, pairs; each for every depth, batch and thread
/// count.
std::vector<BenchCase> cases_of(const Flags& flags) {
  std::vector<BenchCase> kinds;
  for (const std::int64_t n : parse_values("-p", flags.prompt, 0)) {
    if (n > 0) kinds.push_back({.prompt = n});
  }
  for (const std::int64_t n : parse_values("-n", flags.generate, 0)) {
    if (n > 0) kinds.push_back({.generate = n});
  }
  for (const std::string& pair : flags.pairs) {
    const std::vector<std::int64_t> both = parse_values("-pg", pair, 1);
    if (both.size() != 2) throw bad_input("-pg: ", printable(pair), " is not PROMPT,GENERATE");
    kinds.push_back({.prompt = both[0], .generate = both[1]});
  }
  if (kinds.empty()) throw bad_input("nothing to measure: -p and -n are 0");
  std::vector<BenchCase> cases;
  for (const std::int64_t threads : parse_values("-t", flags.threads, 0)) {
    if (threads > 1024) throw bad_input("-t: more than 1024 threads");
    for (const std::int64_t batch : parse_values("-b", flags.batch, 1)) {
      for (const std::int64_t depth : parse_values("-d", flags.depth, 0)) {
        for (BenchCase kind : kinds) {
          kind.depth = depth;
          kind.batch = batch;
          kind.threads = static_cast<int>(threads);
          cases.push_back(kind);
        }
      }
    }
  }
  return cases;
}

template <class T>
Json::Array samples_of(const std::vector<double>& values) {
  Json::Array out;
  for (const double value : values) out.emplace_back(static_cast<T>(value));
  return out;
}

/// Field names of llama-bench, so that scripts that read it read this; below them nibble's own.
Json::Object record_of(const Subject& subject, const BenchResult& result, int threads) {
  const BenchCase& what = result.what;
  return {{"build_commit", NIBBLE_VERSION},
          {"build_number", 0},
          {"cpu_info", cpu_name()},
          {"gpu_info", ""},
          {"backends", "CPU"},
          {"model_filename", subject.name},
          {"model_type", subject.type},
          {"model_size", subject.info.weight_bytes},
          {"model_n_params", subject.info.parameters},
          {"n_batch", ModelOptions().prefill_chunk},
          {"n_ubatch", ModelOptions().prefill_chunk},
          {"n_threads", threads},
          {"type_k", name_of(subject.kv)},
          {"type_v", name_of(subject.kv)},
          {"n_prompt", what.prompt},
          {"n_gen", what.generate},
          {"n_depth", what.depth},
          {"test_time", result.time},
          {"avg_ns", static_cast<std::int64_t>(result.mean_ns())},
          {"stddev_ns", static_cast<std::int64_t>(result.deviation_ns())},
          {"avg_ts", result.mean_speed()},
          {"stddev_ts", result.deviation_speed()},
          {"n_sequences", what.batch},
          {"compute_dtype", name_of(subject.compute)},
          {"latency_ms", result.mean_ns() / 1e6},
          {"ms_per_token", result.mean_ns() / 1e6 / static_cast<double>(what.prompt + what.generate)},
          {"peak_rss_bytes", result.peak_bytes}};
}

/// Collects lines; prints JSON lines and CSV at once, tables and JSON at the end.
class Printer {
 public:
  /// `with_batches`: the table also shows batch sizes and latencies.
  Printer(std::string format, bool with_batches) : format_(std::move(format)), with_batches_(with_batches) {}

  void add(const Subject& subject, const BenchResult& result, int threads) {
    Json::Object record = record_of(subject, result, threads);
    if (format_ == "csv") {
      print_csv(record);
    } else if (format_ == "md") {
      std::vector<std::string> row{subject.type, byte_text(static_cast<double>(subject.info.weight_bytes)),
                                   count_text(static_cast<double>(subject.info.parameters)), "CPU",
                                   std::to_string(threads)};
      if (with_batches_) row.push_back(std::to_string(result.what.batch));
      row.push_back(result.what.name());
      row.push_back(fixed(result.mean_speed(), 2) + " ± " + fixed(result.deviation_speed(), 2));
      if (with_batches_) row.push_back(fixed(result.mean_ns() / 1e6, 2));
      row.push_back(byte_text(static_cast<double>(result.peak_bytes)));
      rows_.push_back(std::move(row));
    } else {
      record.emplace_back("samples_ns", samples_of<std::int64_t>(result.ns));
      record.emplace_back("samples_ts", samples_of<double>(result.speeds()));
      if (format_ == "jsonl") {
        std::cout << Json(std::move(record)).dump() << '\n' << std::flush;
      } else {
        records_.emplace_back(std::move(record));
      }
    }
  }

  void finish() {
    if (format_ == "json") print_json(Json(std::move(records_)));
    if (format_ != "md") return;
    std::vector<Column> columns{{"model"}, {"size", true}, {"params", true}, {"backend"}, {"threads", true}};
    if (with_batches_) columns.push_back({"batch", true});
    columns.insert(columns.end(), {{"test", true}, {"t/s", true}});
    if (with_batches_) columns.push_back({"latency ms", true});
    columns.push_back({"peak RAM", true});
    std::cout << markdown_table(columns, rows_) << "\nbuild: nibble " NIBBLE_VERSION << ", " << cpu_name() << '\n';
  }

 private:
  void print_csv(const Json::Object& record) {
    std::vector<std::string> keys, values;
    for (const auto& [key, value] : record) {
      keys.push_back(key);
      values.push_back(value.is_string() ? value.string(key) : value.dump());
    }
    if (!std::exchange(headed_, true)) std::cout << csv_line(keys);
    std::cout << csv_line(values) << std::flush;
  }

  std::string format_;
  bool with_batches_;
  bool headed_ = false;
  std::vector<std::vector<std::string>> rows_;
  Json::Array records_;
};

void bench_model(const std::string& name, const Flags& flags, const std::vector<BenchCase>& cases, Printer& printer) {
  std::map<int, std::unique_ptr<Compute>> computes;
  const auto compute_of = [&](int threads) -> Exec& {
    auto& compute = computes[threads];
    if (!compute) compute = std::make_unique<Compute>(ComputeFlags{.threads = threads, .device = flags.device});
    return compute->exec();
  };
  const ModelFlags model_flags{.model = name,
                               .dtype = flags.dtype,
                               .kv_dtype = flags.kv_dtype,
                               .compute = {.device = flags.device},
                               .lora = flags.lora};
  Exec& loader = compute_of(cases.front().threads);
  const OpenedModel opened = open_model(model_flags, loader);
  const Subject subject{.name = name,
                        .type = model_type_text(opened),
                        .info = opened.model->info(),
                        .compute = loader.compute,
                        .kv = dtype_from_name(flags.kv_dtype).value_or(DType::f32)};
  ProgressBar bar;
  const ProgressCallback progress = bar.callback();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (progress)
      progress({"bench", name + " " + cases[i].name(), static_cast<std::int64_t>(i),
                static_cast<std::int64_t>(cases.size())});
    Exec& exec = compute_of(cases[i].threads);
    exec.compute = loader.compute;
    const BenchResult result = run_bench(*opened.model, cases[i], flags.repetitions, !flags.no_warmup, exec);
    bar.clear();
    printer.add(subject, result, exec.pool.size());
  }
}

void run_command(const Flags& flags) {
  const std::vector<BenchCase> cases = cases_of(flags);
  const bool with_batches = std::any_of(cases.begin(), cases.end(), [](const BenchCase& c) { return c.batch != 1; });
  Printer printer(flags.output, with_batches);
  for (const std::string& model : flags.models) bench_model(model, flags, cases, printer);
  printer.finish();
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Measure speed and memory: prompts, generation, batches");
  const auto flags = std::make_shared<Flags>();
  command->add_option("model,-m,--model", flags->models, "Models: folders, files or org/name")->required();
  command->add_option("-p,--n-prompt", flags->prompt, "Tokens of the prompt test; 0: none")->capture_default_str();
  command->add_option("-n,--n-gen", flags->generate, "Tokens of the generation test; 0: none")->capture_default_str();
  command->add_option("--pg", flags->pairs, "PROMPT,GENERATE timed together (also written -pg)");
  command->add_option("-d,--n-depth", flags->depth, "Positions already in the cache")->capture_default_str();
  command->add_option("-b,--batch", flags->batch, "Sequences computed together")->capture_default_str();
  command->add_option("-t,--threads", flags->threads, "Threads; 0: one per core")->capture_default_str();
  command->add_option("-r,--repetitions", flags->repetitions, "Repetitions of every test")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("-o,--output", flags->output, "md, csv, json or jsonl")
      ->check(CLI::IsMember({"md", "csv", "json", "jsonl"}))
      ->capture_default_str();
  command->add_flag("--no-warmup", flags->no_warmup, "Do not run each test once before timing it");
  command->add_option("--dtype", flags->dtype, "Arithmetic: f32, bf16, f16, or auto")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  command->add_option("--kv-dtype", flags->kv_dtype, "Elements of the KV cache: f32, f16 or bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  add_lora_flag(*command, flags->lora);
  command->add_option("--device", flags->device, "cpu, or ref: slow scalar arithmetic")
      ->check(CLI::IsMember({"cpu", "ref"}))
      ->capture_default_str();
  command->footer(
      "-p, -n, -d, -b and -t take lists: 128,512 or 1-8 or 128-512+128 or 1-16*2.\n"
      "Tokenization and sampling are not timed. t/s counts the tokens of all sequences of a batch.\n"
      "Examples:\n"
      "  nibble bench models/demo\n"
      "  nibble bench models/demo out/int4 -p 512 -n 128 -r 5 -o json\n"
      "  nibble bench models/demo -p 0 -n 64 -b 1,2,4,8 -t 1,2");
  command->callback([flags] { run_command(*flags); });
}

}  // namespace nibble::cli
