#include "cli/common.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "quant/scheme.h"
#include "run/adapter/bind.h"
#include "run/compute_dtype.h"

namespace nibble::cli {
namespace {

constexpr std::int64_t kMaxTextBytes = std::int64_t{1} << 32;

Target target_named(const std::string& device) { return device == "ref" ? Target::ref : Target::cpu; }

}  // namespace

void add_compute_flags(CLI::App& command, ComputeFlags& flags) {
  command.add_option("-t,--threads", flags.threads, "Threads; 0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command.add_option("--device", flags.device, "cpu, or ref: slow scalar arithmetic in double")
      ->check(CLI::IsMember({"cpu", "ref"}))
      ->capture_default_str();
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("model,-m,--model", flags.model,
                  "Model folder, file, or org/name[@revision] in the Hugging Face cache")
      ->required();
  command
      .add_option("--dtype", flags.dtype, "Arithmetic: f32, bf16, f16, or auto: bf16 for bf16 checkpoints, else f32")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  command.add_option("--kv-dtype", flags.kv_dtype, "Elements of the KV cache: f32, f16 or bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  add_lora_flag(command, flags.lora);
  add_compute_flags(command, flags.compute);
}

CLI::Option* add_lora_flag(CLI::App& command, std::vector<std::string>& lora) {
  return command
      .add_option("--lora", lora,
                  "LoRA adapter as PEFT saves it: PATH or PATH=SCALE, a folder or org/name; may be given several times")
      ->take_all()
      ->allow_extra_args(false);
}

std::vector<AdapterUse> open_adapters(const std::vector<std::string>& lora) {
  std::vector<AdapterUse> out;
  for (const std::string& text : lora) {
    const AdapterName name = parse_adapter_name(text);
    out.push_back({Adapter::open(name.path), name.scale});
  }
  return out;
}

Compute::Compute(const ComputeFlags& flags)
    : pool_(flags.threads), exec_{.target = target_named(flags.device), .pool = pool_, .arena = arena_} {}

DType compute_dtype(const std::string& dtype, const Checkpoint& checkpoint) {
  if (dtype != "auto") {
    const auto named = dtype_from_name(dtype);
    if (!named) throw bad_input("unknown dtype ", printable(dtype));
    return *named;
  }
  return default_compute_dtype(checkpoint);
}

OpenedModel open_model(const ModelFlags& flags, Exec& exec, std::int64_t max_context) {
  OpenedModel opened;
  opened.checkpoint = Checkpoint::open(flags.model);
  exec.compute = compute_dtype(flags.dtype, *opened.checkpoint);
  ModelOptions options;
  options.kv_dtype = dtype_from_name(flags.kv_dtype).value_or(DType::f32);
  options.max_context = max_context;
  opened.model = load_adapted(opened.checkpoint, open_adapters(flags.lora), options, exec);
  return opened;
}

std::string weights_text(std::shared_ptr<const Checkpoint> checkpoint) {
  const WeightStore store(checkpoint);
  std::map<std::string, std::int64_t> sizes;  // elements of each form; the form with most names the model
  if (store.scheme() != nullptr) {
    for (const std::string& module : store.reader()->modules()) {
      const std::string form = store.reader()->describe(module);
      ++sizes[std::string(store.scheme()->name) + " " + form.substr(0, form.find(','))];
    }
  } else {
    for (const TensorEntry& entry : checkpoint->tensors())
      sizes[std::string(name_of(entry.view.dtype()))] += entry.view.count();
  }
  if (sizes.empty()) return "empty";
  const auto less = [](const auto& a, const auto& b) { return a.second < b.second; };
  return std::max_element(sizes.begin(), sizes.end(), less)->first;
}

std::string model_type_text(const OpenedModel& opened) {
  return opened.model->info().architecture + " " + weights_text(opened.checkpoint);
}

std::string read_text_input(const std::string& file) {
  const bool from_stdin = file == "-";
  std::string text =
      from_stdin ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_file(file, kMaxTextBytes);
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  if (const std::size_t bad = utf8_first_invalid(text); bad != text.size())
    throw bad_input(from_stdin ? "standard input" : printable(file), ": not UTF-8 at byte ", bad);
  return text;
}

void print_json(const Json& json) { std::cout << json.dump(2) << '\n'; }

}  // namespace nibble::cli
