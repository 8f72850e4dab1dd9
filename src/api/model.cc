// The public model (include/nibble/nibble.h) over run and quant.
#include <algorithm>
#include <utility>

#include "api/adapter_set.h"
#include "api/quantize_in_memory.h"
#include "api/tokenizer_state.h"
#include "base/error.h"
#include "checkpoint/side_files.h"
#include "checkpoint/writer.h"
#include "run/compute_dtype.h"
#include "run/generate.h"
#include "run/perplexity.h"

namespace nibble {
namespace {

constexpr std::int64_t kDefaultNewTokens = 20;

Target target_of(const std::string& device_map) {
  if (device_map == "auto" || device_map == "cpu") return Target::cpu;
  if (device_map == "ref") return Target::ref;
  throw bad_input("device_map: there is no device ", printable(device_map), "; use auto or cpu");
}

DType compute_of(const std::string& torch_dtype, const Checkpoint& checkpoint) {
  if (torch_dtype != "auto") {
    const auto named = dtype_from_name(torch_dtype);
    if (named != DType::f32 && named != DType::bf16 && named != DType::f16)
      throw bad_input("torch_dtype: ", printable(torch_dtype), " is none of auto, float32, bfloat16, float16");
    return *named;
  }
  return default_compute_dtype(checkpoint);
}

void apply(const GenerationConfig& config, GenerateOptions& options) {
  SamplingOptions& s = options.sampling;
  s.do_sample = config.do_sample.value_or(s.do_sample);
  s.temperature = config.temperature.value_or(s.temperature);
  s.top_p = config.top_p.value_or(s.top_p);
  s.min_p = config.min_p.value_or(s.min_p);
  s.top_k = config.top_k.value_or(s.top_k);
  s.repetition_penalty = config.repetition_penalty.value_or(s.repetition_penalty);
  s.seed = config.seed;
  if (config.max_new_tokens) {
    if (*config.max_new_tokens < 1) throw bad_input("max_new_tokens must be at least 1");
    options.max_new_tokens = *config.max_new_tokens;
  } else if (options.max_new_tokens == 0) {
    options.max_new_tokens = kDefaultNewTokens;
  }
  check_sampling(s);
}

}  // namespace

struct PreTrainedModel::State {
  State(int threads, Target target) : pool(threads), exec{.target = target, .pool = pool, .arena = arena} {}
  ThreadPool pool;
  Arena arena;
  Exec exec;
  std::shared_ptr<const Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
  AdapterSet adapters;

  /// Changes which adapters are in use; what fails changes nothing.
  void change_adapters(const std::function<void(AdapterSet&)>& change) {
    AdapterSet changed = adapters;
    change(changed);
    changed.apply(checkpoint, model, exec);
    adapters = std::move(changed);
  }
};

PreTrainedModel::PreTrainedModel(std::unique_ptr<State> state) : state_(std::move(state)) {}
PreTrainedModel::PreTrainedModel(PreTrainedModel&&) noexcept = default;
PreTrainedModel& PreTrainedModel::operator=(PreTrainedModel&&) noexcept = default;
PreTrainedModel::~PreTrainedModel() = default;

PreTrainedModel AutoModelForCausalLM::from_pretrained(const std::string& name, const PretrainedOptions& options) {
  if (options.threads < 0 || options.threads > 1024) throw bad_input("threads must be from 0 to 1024");
  auto state = std::make_unique<PreTrainedModel::State>(options.threads, target_of(options.device_map));
  state->checkpoint = Checkpoint::open(name);
  state->exec.compute = compute_of(options.torch_dtype, *state->checkpoint);
  if (options.quantization_config) {
    ProgressCallback progress;
    if (options.progress) progress = [&](const Progress& at) { options.progress(at.task, at.done, at.total); };
    state->checkpoint = quantize_in_memory(state->checkpoint, *options.quantization_config, state->pool, progress);
  }
  state->model = Model::load(state->checkpoint, {}, state->exec);
  return PreTrainedModel(std::move(state));
}

TokenIds PreTrainedModel::generate(const TokenIds& input_ids, const GenerationConfig& config) {
  GenerateOptions options = default_generate_options(*state_->checkpoint);
  apply(config, options);
  const auto on_token = [&](std::int32_t id, std::string_view) {
    return id < 0 || !config.streamer || config.streamer(id);
  };
  const Generated made = nibble::generate(*state_->model, nullptr, input_ids, options, state_->exec, on_token);
  TokenIds out = input_ids;
  out.insert(out.end(), made.ids.begin(), made.ids.end());
  return out;
}

std::vector<TokenIds> PreTrainedModel::generate(const BatchEncoding& inputs, const GenerationConfig& config) {
  std::vector<TokenIds> out;
  for (const TokenIds& ids : inputs.input_ids) out.push_back(generate(ids, config));
  return out;
}

std::vector<float> PreTrainedModel::logits(const TokenIds& input_ids) {
  const std::int64_t vocab = vocab_size();
  std::vector<float> out;
  for_each_logits(*state_->model, input_ids, state_->exec, [&](std::int64_t, std::int64_t rows, const float* values) {
    out.insert(out.end(), values, values + rows * vocab);
  });
  return out;
}

Perplexity PreTrainedModel::perplexity(const PreTrainedTokenizer& tokenizer, const std::string& text,
                                       const PerplexityConfig& config) {
  const auto protocol = protocol_from_name(config.protocol);
  if (!protocol) throw bad_input("unknown protocol ", printable(config.protocol));
  const EvalOptions options{
      .protocol = *protocol, .ctx = config.ctx, .stride = config.stride, .max_windows = config.max_windows};
  const EvalPlan plan = plan_evaluation(document_of(text), *tokenizer.state_->tokenizer, context_length(), options);
  const PerplexityResult result = measure_perplexity({*state_->model, state_->exec}, nullptr, plan);
  return {result.ppl.value, result.ppl.error, plan.tokens, static_cast<std::int64_t>(plan.windows.size())};
}

std::string PreTrainedModel::load_adapter(const std::string& path, double scale, const std::string& adapter_name) {
  std::string name;
  state_->change_adapters([&](AdapterSet& set) { name = set.add(path, scale, adapter_name); });
  return name;
}

void PreTrainedModel::set_adapter(const std::vector<std::string>& adapter_names) {
  state_->change_adapters([&](AdapterSet& set) { set.activate(adapter_names); });
}

void PreTrainedModel::disable_adapters() {
  state_->change_adapters([](AdapterSet& set) { set.enable(false); });
}

void PreTrainedModel::enable_adapters() {
  state_->change_adapters([](AdapterSet& set) { set.enable(true); });
}

std::vector<std::string> PreTrainedModel::active_adapters() const { return state_->adapters.active(); }

std::int64_t PreTrainedModel::get_memory_footprint() const { return state_->model->info().weight_bytes; }
std::int64_t PreTrainedModel::num_parameters() const { return state_->model->info().parameters; }
std::int64_t PreTrainedModel::vocab_size() const { return state_->model->info().vocab_size; }
std::int64_t PreTrainedModel::context_length() const { return state_->model->info().context_length; }

void PreTrainedModel::save_pretrained(const std::string& folder, const SaveOptions& options) const {
  const Checkpoint& checkpoint = *state_->checkpoint;
  refuse_same_folder(folder, checkpoint.folder());
  std::vector<TensorPlan> plan;
  for (const TensorEntry& entry : checkpoint.tensors())
    plan.push_back({entry.name, entry.view.dtype(), entry.view.shape()});
  WriterOptions writing;
  writing.max_shard_bytes = parse_byte_size(options.max_shard_size);
  CheckpointWriter writer(folder, std::move(plan), writing);
  for (const TensorEntry& entry : checkpoint.tensors()) writer.write(entry.name, entry.view.bytes());
  add_side_files(writer, checkpoint, checkpoint.config());
  for (const auto& [name, content] : checkpoint.files()) writer.add_file(name, content);
  writer.commit();
}

std::string version() { return NIBBLE_VERSION; }

}  // namespace nibble
