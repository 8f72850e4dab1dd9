#include "api/quantize_on_load.h"

#include <algorithm>

#include "api/config_json.h"
#include "api/device_map.h"
#include "api/quantize_in_memory.h"
#include "base/error.h"
#include "calib/dataset.h"
#include "models/model_config.h"
#include "quant/bnb_quantizer.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

using Source = std::shared_ptr<const Checkpoint>;

constexpr std::int64_t kSamples = 128;       // sequences of a data set, as optimum takes
constexpr std::int64_t kUsualSeqlen = 2048;  // tokens of each
constexpr std::int64_t kFewTokens = 16384;

/// One call of quantize_on_load.
struct Job {
  const Source& source;
  const DeviceMap& device_map;
  Exec& exec;
  const ProgressCallback& progress;
  std::vector<std::string>& notes;
};

Source quantize(const QuantoConfig& config, const Job& job) {
  return quantize_in_memory(job.source, config, job.exec.pool, job.progress);
}

Source quantize(const AwqConfig&, const Job& job) {
  throw bad_input(job.source->folder().string(), ": is not quantized; an AwqConfig is for models that are");
}

Source quantize(const AqlmConfig&, const Job& job) {
  throw bad_input(job.source->folder().string(), ": is not quantized; an AqlmConfig is for models that are");
}

/// The folder whose tokenizer prepares the data.
std::filesystem::path tokenizer_folder(const GPTQConfig& config, const Job& job) {
  if (const auto* given = std::get_if<PreTrainedTokenizer>(&config.tokenizer)) return given->name_or_path();
  if (const auto* name = std::get_if<std::string>(&config.tokenizer)) return resolve_model(*name);
  return job.source->folder();
}

std::vector<TokenIds> sequences_of(const GPTQConfig& config, const Job& job) {
  const models::ModelConfig model = models::parse_model_config(job.source->config(), "config.json");
  const std::int64_t usual = model.context_length > 0 ? std::min(kUsualSeqlen, model.context_length) : kUsualSeqlen;
  const std::int64_t seqlen = config.model_seqlen.value_or(usual);
  const std::filesystem::path folder = tokenizer_folder(config, job);
  if (const auto* name = std::get_if<std::string>(&config.dataset)) {
    return calibration_sequences(*name, config.dataset_path, folder, {.samples = kSamples, .seqlen = seqlen});
  }
  const auto* texts = std::get_if<std::vector<std::string>>(&config.dataset);
  if (texts == nullptr)
    throw bad_input(job.source->folder().string(), ": is not quantized; a GPTQConfig then needs a dataset");
  const auto tokenizer = Tokenizer::open(folder);
  std::vector<TokenIds> out;
  for (const std::string& text : *texts) {
    TokenIds ids = tokenizer->encode(text);
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(seqlen)));
    if (!ids.empty()) out.push_back(std::move(ids));
  }
  if (out.empty()) throw bad_input("GPTQConfig: dataset holds no tokens to calibrate on");
  return out;
}

void check_modules(const GPTQConfig& config, const Job& job) {
  const ModuleNames modules(*job.source);
  const auto check_name = [&](const std::string& name, const char* field) {
    if (!modules.has(name)) throw bad_input("GPTQConfig: ", field, ": the model has no module ", printable(name));
  };
  if (config.block_name_to_quantize) check_name(*config.block_name_to_quantize, "block_name_to_quantize");
  if (!config.module_name_preceding_first_block) return;
  for (const std::string& name : *config.module_name_preceding_first_block)
    check_name(name, "module_name_preceding_first_block");
}

Source quantize(const GPTQConfig& config, const Job& job) {
  check_modules(config, job);
  GptqInMemory task;
  task.config.solver.options.bits = config.bits;
  task.config.solver.options.group = config.group_size;
  task.config.solver.options.sym = config.sym;
  task.config.solver.options.desc_act = config.desc_act;
  task.config.solver.options.damp = config.damp_percent;
  task.config.true_sequential = config.true_sequential;
  task.sequences = sequences_of(config, job);
  if (config.modules_in_block_to_quantize) {
    for (const auto& together : *config.modules_in_block_to_quantize) {
      for (const std::string& name : together) task.include.push_back("*." + name);
    }
  }
  const std::int64_t tokens = token_count(task.sequences);
  if (tokens < kFewTokens)
    job.notes.push_back(cat("GPTQConfig: the dataset has ", tokens, " tokens: few; expect more error than need be"));
  return quantize_in_memory(job.source, std::move(task), job.exec, job.progress);
}

/// Excludes modules that the device map gives to the cpu. As in Transformers, that must have been asked for.
void keep_offloaded(const BitsAndBytesConfig& config, const Job& job, ModuleSelection& selection) {
  const ModuleNames names(*job.source);
  const std::vector<std::string> offloaded = offloaded_modules(job.device_map, names);
  if (offloaded.empty()) return;
  for (const SelectedModule& module : select_modules(*job.source, selection).modules) {
    if (!std::binary_search(offloaded.begin(), offloaded.end(), names.full(module.name))) continue;
    if (!config.llm_int8_enable_fp32_cpu_offload) {
      throw bad_input("device_map: ", printable(module.name), " goes to the cpu, where it stays in floats: set ",
                      "llm_int8_enable_fp32_cpu_offload");
    }
    selection.exclude.push_back(module.name);
  }
}

Source quantize(const BitsAndBytesConfig& config, const Job& job) {
  Json json = config_json(config);
  if (!config.load_in_8bit && !config.load_in_4bit) {
    json.set("load_in_8bit", true);
    job.notes.emplace_back("BitsAndBytesConfig: neither load_in_8bit nor load_in_4bit is set: 8 bits");
  }
  const bnb::Config parsed = bnb::parse_config(json, "BitsAndBytesConfig");
  ModuleSelection selection = selection_of(parsed);
  keep_offloaded(config, job, selection);
  return quantize_in_memory(job.source, *make_bnb_quantizer(parsed), selection, job.exec.pool, job.progress);
}

}  // namespace

Source quantize_on_load(const Source& source, const QuantizeRequest& request, Exec& exec,
                        const ProgressCallback& progress, std::vector<std::string>& notes) {
  const Job job{source, request.device_map, exec, progress, notes};
  return std::visit([&](const auto& config) { return quantize(config, job); }, request.config);
}

}  // namespace nibble
