// What several commands share: flags that choose model, threads and arithmetic; opening what they name; reading texts.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "device/device.h"
#include "run/adapter/adapter.h"
#include "run/model.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace nibble::cli {

/// -t/--threads and --device.
struct ComputeFlags {
  int threads = 0;  ///< 0: one per core
  std::string device = "cpu";
};
void add_compute_flags(CLI::App& command, ComputeFlags& flags);

/// MODEL, --dtype, --kv-dtype, --lora, -t/--threads and --device.
struct ModelFlags {
  std::string model;
  std::string dtype = "auto";
  std::string kv_dtype = "f32";
  ComputeFlags compute;
  std::vector<std::string> lora;  ///< PATH or PATH=SCALE
};
void add_model_flags(CLI::App& command, ModelFlags& flags);
/// --lora PATH[=SCALE], repeatable.
CLI::Option* add_lora_flag(CLI::App& command, std::vector<std::string>& lora);
/// Opens the adapters that --lora names.
std::vector<AdapterUse> open_adapters(const std::vector<std::string>& lora);

/// Threads and scratch memory of one command.
class Compute {
 public:
  explicit Compute(const ComputeFlags& flags);
  Exec& exec() { return exec_; }

 private:
  ThreadPool pool_;
  Arena arena_;
  Exec exec_;
};

/// The arithmetic of matrix products that `dtype` names: f32, bf16, f16, or auto: bf16 for checkpoints in bf16, else
/// f32.
DType compute_dtype(const std::string& dtype, const Checkpoint& checkpoint);

/// A checkpoint opened for running.
struct OpenedModel {
  std::shared_ptr<const Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
};
/// Opens flags.model and sets exec.compute. `max_context` as in ModelOptions.
OpenedModel open_model(const ModelFlags& flags, Exec& exec, std::int64_t max_context = 0);

/// How the weights are stored: the scheme and its form, or the float type: "quanto int4", "bf16".
std::string weights_text(std::shared_ptr<const Checkpoint> checkpoint);
/// One short name of a model: "LlamaForCausalLM quanto int4".
std::string model_type_text(const OpenedModel& opened);

/// The file's text ("-": standard input); must be valid UTF-8, a byte order mark is dropped. Error(bad_input) else.
std::string read_text_input(const std::string& file);

/// Prints a JSON document and a newline on stdout.
void print_json(const Json& json);

/// The processor's instruction sets that decide which kernels run: "sse4.2 avx2 fma".
std::string cpu_features();

}  // namespace nibble::cli
