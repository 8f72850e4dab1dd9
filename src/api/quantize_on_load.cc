#include "api/quantize_on_load.h"

#include <algorithm>

#include "api/config_json.h"
#include "api/device_map.h"
#include "api/quantize_in_memory.h"
#include "base/error.h"
#include "calib/dataset.h"
#include "models/model_config.h"
#include "quant/aqlm/quantizer.h"
#include "quant/bnb_quantizer.h"
#include "quant/common/quant_config.h"
#include "quant/gptq/quantizer.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

using Source = std::shared_ptr<const Checkpoint>;

constexpr std::int64_t kSamples = 128;       // sequences of a data set, as optimum takes
constexpr std::int64_t kUsualSeqlen = 2048;  // tokens of each
constexpr std::int64_t kFewTokens = 16384;
constexpr std::int64_t kAwqSeqlen = 512, kAwqFewTokens = 4096;  // as AutoAWQ takes

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

/// What the configs of methods that calibrate have in common.
struct Data {
  template <class Config>
  Data(std::string_view class_name, const Config& config, std::int64_t usual_seqlen, std::int64_t few_tokens)
      : name(class_name),
        dataset(config.dataset),
        path(config.dataset_path),
        tokenizer(config.tokenizer),
        seqlen(config.model_seqlen),
        usual(usual_seqlen),
        few(few_tokens) {}

  std::string_view name;
  const CalibrationDataset& dataset;
  const std::string& path;
  const CalibrationTokenizer& tokenizer;
  const std::optional<std::int64_t>& seqlen;
  std::int64_t usual;  ///< tokens of a sequence, unless the config or the model's context says less
  std::int64_t few;    ///< tokens: fewer are called that
};

/// The folder whose tokenizer prepares the data.
std::filesystem::path tokenizer_folder(const Data& data, const Job& job) {
  if (const auto* given = std::get_if<PreTrainedTokenizer>(&data.tokenizer)) return given->name_or_path();
  if (const auto* name = std::get_if<std::string>(&data.tokenizer)) return resolve_model(*name);
  return job.source->folder();
}

std::vector<TokenIds> encoded(const std::vector<std::string>& texts, const std::filesystem::path& folder,
                              std::int64_t seqlen, const Data& data) {
  const auto tokenizer = Tokenizer::open(folder);
  std::vector<TokenIds> out;
  for (const std::string& text : texts) {
    TokenIds ids = tokenizer->encode(text);
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(seqlen)));
    if (!ids.empty()) out.push_back(std::move(ids));
  }
  if (out.empty()) throw bad_input(data.name, ": dataset holds no tokens to calibrate on");
  return out;
}

std::vector<TokenIds> sequences_of(const Data& data, const Job& job) {
  const models::ModelConfig model = models::parse_model_config(job.source->config(), "config.json");
  const std::int64_t usual = model.context_length > 0 ? std::min(data.usual, model.context_length) : data.usual;
  const std::int64_t seqlen = data.seqlen.value_or(usual);
  const std::filesystem::path folder = tokenizer_folder(data, job);
  std::vector<TokenIds> out;
  if (const auto* name = std::get_if<std::string>(&data.dataset)) {
    out = calibration_sequences(*name, data.path, folder, {.samples = kSamples, .seqlen = seqlen});
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&data.dataset)) {
    out = encoded(*texts, folder, seqlen, data);
  } else {
    throw bad_input(job.source->folder().string(), ": is not quantized; ", data.name,
                    " needs a dataset to quantize it");
  }
  if (const std::int64_t tokens = token_count(out); tokens < data.few)
    job.notes.push_back(cat(data.name, ": the dataset has ", tokens, " tokens: few; expect more error than need be"));
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
  gptq::QuantizerConfig options;
  options.solver.options.bits = config.bits;
  options.solver.options.group = config.group_size;
  options.solver.options.sym = config.sym;
  options.solver.options.desc_act = config.desc_act;
  options.solver.options.damp = config.damp_percent;
  options.true_sequential = config.true_sequential;
  CalibratedSelection task{sequences_of({"GPTQConfig", config, kUsualSeqlen, kFewTokens}, job), {}};
  if (config.modules_in_block_to_quantize) {
    for (const auto& together : *config.modules_in_block_to_quantize) {
      for (const std::string& name : together) task.selection.include.push_back("*." + name);
    }
  }
  gptq::Quantizer quantizer(options);
  return quantize_in_memory(job.source, quantizer, std::move(task), job.exec, job.progress);
}

/// exllama and ipex are choices of a kernel for gemm files.
awq::Variant variant_of(const AwqConfig& config) {
  if (config.backend == "llm-awq") return awq::Variant::llm_awq;
  const std::string version = lower_case(config.version);
  if (version == "gemv") return awq::Variant::gemv;
  return version == "gemv_fast" || version == "gemvfast" ? awq::Variant::gemv_fast : awq::Variant::gemm;
}

Source quantize(const AwqConfig& config, const Job& job) {
  if (!config.zero_point) throw bad_input("AwqConfig: zero_point is false, but nibble quantizes with zero points only");
  if (config.group_size != -1 && config.group_size < 8)
    throw bad_input("AwqConfig: group_size: ", config.group_size, " (multiples of 8 exist, and -1 for all inputs)");
  awq::QuantizerConfig options;
  options.options.group = config.group_size;
  options.variant = variant_of(config);
  CalibratedSelection task{sequences_of({"AwqConfig", config, kAwqSeqlen, kAwqFewTokens}, job), {}};
  if (config.modules_to_not_convert) {
    task.selection.skip = quant::NamePatterns(*config.modules_to_not_convert, "AwqConfig: modules_to_not_convert");
  }
  return quantize_in_memory(job.source, std::move(options), std::move(task), job.exec, job.progress);
}

/// linear_weights_not_to_quantize as names of modules.
quant::NamePatterns kept_modules(std::vector<std::string> names) {
  constexpr std::string_view kWeight = ".weight";
  for (std::string& name : names) {
    if (name.ends_with(kWeight)) name.resize(name.size() - kWeight.size());
  }
  return {std::move(names), "AqlmConfig: linear_weights_not_to_quantize"};
}

Source quantize(const AqlmConfig& config, const Job& job) {
  if (config.out_group_size != 1)
    throw bad_input("AqlmConfig: out_group_size: ", config.out_group_size, " (nibble quantizes with 1)");
  aqlm::QuantizerConfig options;
  options.options.codebooks = config.num_codebooks;
  options.options.bits = config.nbits_per_codebook;
  options.options.group = config.in_group_size;
  options.options.effort = aqlm::effort_of(*aqlm::preset_from_name(config.preset));
  aqlm::Quantizer quantizer(options);
  CalibratedSelection task{sequences_of({"AqlmConfig", config, kUsualSeqlen, kFewTokens}, job), {}};
  if (config.linear_weights_not_to_quantize) task.selection.skip = kept_modules(*config.linear_weights_not_to_quantize);
  return quantize_in_memory(job.source, quantizer, std::move(task), job.exec, job.progress);
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
