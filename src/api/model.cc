// The public model (include/nibble/nibble.h) over run and quant.
#include <algorithm>
#include <array>
#include <utility>

#include "api/adapter_set.h"
#include "api/device_map.h"
#include "api/footprint.h"
#include "api/module_names.h"
#include "api/other_dtype.h"
#include "api/quantization_config.h"
#include "api/quantize_on_load.h"
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

/// nullopt for "auto".
std::optional<DType> parsed_torch_dtype(const std::string& torch_dtype) {
  if (torch_dtype == "auto") return std::nullopt;
  const auto named = dtype_from_name(torch_dtype);
  if (named != DType::f32 && named != DType::bf16 && named != DType::f16)
    throw bad_input("torch_dtype: ", printable(torch_dtype), " is none of auto, float32, bfloat16, float16");
  return named;
}

void check_attention(const PretrainedOptions& options, std::vector<std::string>& notes) {
  static constexpr std::array<std::string_view, 5> names{"eager", "sdpa", "flash_attention_2", "flash_attention_3",
                                                         "flex_attention"};
  if (!options.attn_implementation) return;
  const std::string& name = *options.attn_implementation;
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    throw bad_input("attn_implementation: ", printable(name), " is none of ", names[0], ", ", names[1], ", ", names[2],
                    ", ", names[3], ", ", names[4]);
  }
  notes.push_back(cat("attn_implementation ", name, ": accepted; nibble has one attention, which never holds a matrix ",
                      "of all scores"));
}

void apply(const GenerationConfig& config, std::int64_t prompt, GenerateOptions& options) {
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
  } else if (config.max_length) {
    if (*config.max_length <= prompt)
      throw bad_input("max_length is ", *config.max_length, ", but the prompt has ", prompt, " tokens already");
    options.max_new_tokens = *config.max_length - prompt;
  } else if (options.max_new_tokens == 0) {
    options.max_new_tokens = kDefaultNewTokens;
  }
  check_sampling(s);
}

}  // namespace

struct PreTrainedModel::State {
  State(int threads, Target target) : pool(threads), exec{.target = target, .pool = pool, .arena = arena} {}

  /// The opened checkpoint becomes what the model is built from: in torch_dtype, quantized or with another config.
  void prepare(const PretrainedOptions& options, const std::optional<QuantizationConfig>& config);
  /// Throws Error(bad_input) when max_memory has no room for `positions` in the KV cache.
  void check_memory(std::int64_t positions) const {
    if (!memory_bound) return;
    const ModelInfo& info = model->info();
    const std::int64_t pages = info.kv_page_rows > 0 ? (positions + info.kv_page_rows - 1) / info.kv_page_rows : 0;
    const std::int64_t cache = pages * info.kv_page_bytes;
    if (info.weight_bytes + cache <= *memory_bound) return;
    throw bad_input("max_memory: ", *memory_bound, " bytes are allowed, but the weights take ", info.weight_bytes,
                    positions > 0 ? cat(" and the KV cache of ", positions, " positions ", cache) : std::string());
  }

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
  std::optional<DType> torch_dtype;  ///< as asked for
  std::optional<std::int64_t> memory_bound;
  std::vector<std::string> notes;
  std::vector<std::string> quantized;  ///< modules, sorted; known when torch_dtype is
};

PreTrainedModel::PreTrainedModel(std::unique_ptr<State> state) : state_(std::move(state)) {}
PreTrainedModel::PreTrainedModel(PreTrainedModel&&) noexcept = default;
PreTrainedModel& PreTrainedModel::operator=(PreTrainedModel&&) noexcept = default;
PreTrainedModel::~PreTrainedModel() = default;

void PreTrainedModel::State::prepare(const PretrainedOptions& options,
                                     const std::optional<QuantizationConfig>& config) {
  const std::string_view scheme = claiming_scheme(*checkpoint);
  const auto convert = [&] {
    if (torch_dtype) checkpoint = with_other_dtype(checkpoint, *torch_dtype, quantized, pool);
  };
  if (!scheme.empty()) {
    if (config) checkpoint = with_loading_attributes(checkpoint, scheme, *config, notes);
    if (torch_dtype) quantized = quantized_modules(checkpoint);
    convert();
    return;
  }
  convert();  // first, as Transformers does: weights are quantized from what torch_dtype makes of them
  if (!config) return;
  ProgressCallback progress;
  if (options.progress) progress = [&](const Progress& at) { options.progress(at.task, at.done, at.total); };
  checkpoint = quantize_on_load(checkpoint, {*config, options.device_map}, exec, progress, notes);
  if (torch_dtype) quantized = quantized_modules(checkpoint);
}

PreTrainedModel AutoModelForCausalLM::from_pretrained(const std::string& name, const PretrainedOptions& options) {
  if (options.threads < 0 || options.threads > 1024) throw bad_input("threads must be from 0 to 1024");
  const std::optional<QuantizationConfig> config = requested_config(options);
  auto state = std::make_unique<PreTrainedModel::State>(options.threads, target_of(options.device_map, "device_map"));
  state->torch_dtype = parsed_torch_dtype(options.torch_dtype);
  state->memory_bound = memory_bound(options.max_memory);
  check_attention(options, state->notes);
  state->checkpoint = Checkpoint::open(name);
  check_device_map(options.device_map, ModuleNames(*state->checkpoint));
  state->exec.compute = state->torch_dtype.value_or(default_compute_dtype(*state->checkpoint));
  if (const auto* bnb = config ? std::get_if<BitsAndBytesConfig>(&*config) : nullptr) {
    if (bnb->bnb_4bit_compute_dtype) state->exec.compute = *dtype_from_name(*bnb->bnb_4bit_compute_dtype);
  }
  state->prepare(options, config);
  state->model = Model::load(state->checkpoint, {}, state->exec);
  state->check_memory(0);
  return PreTrainedModel(std::move(state));
}

TokenIds PreTrainedModel::generate(const TokenIds& input_ids, const GenerationConfig& config) {
  GenerateOptions options = default_generate_options(*state_->checkpoint);
  const auto prompt = static_cast<std::int64_t>(input_ids.size());
  apply(config, prompt, options);
  const std::int64_t context = context_length();
  const std::int64_t room = context > 0 ? std::max<std::int64_t>(context - prompt, 0) : options.max_new_tokens;
  state_->check_memory(prompt + std::min(room, options.max_new_tokens));
  const auto on_token = [&](std::int32_t id, std::string_view) {
    return id < 0 || !config.streamer || config.streamer(id);
  };
  const Generated made = nibble::generate(*state_->model, nullptr, input_ids, options, state_->exec, on_token);
  // An encoder-decoder's sequence is the answer alone, from the token that its decoder begins with.
  TokenIds out = state_->model->info().encoder_decoder ? TokenIds{*options.decoder_start} : input_ids;
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
  state_->check_memory(static_cast<std::int64_t>(input_ids.size()));
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

std::int64_t PreTrainedModel::get_memory_footprint(bool as_transformers) const {
  if (!as_transformers) return state_->model->info().weight_bytes;
  return transformers_footprint(state_->checkpoint, state_->torch_dtype);
}

std::string PreTrainedModel::device() const { return state_->exec.target == Target::ref ? "ref" : "cpu"; }

std::string PreTrainedModel::dtype_of(const std::string& tensor) const {
  const TensorEntry* entry = ModuleNames(*state_->checkpoint).tensor(tensor);
  if (entry == nullptr) throw bad_input("the model has no tensor ", printable(tensor));
  const DType stored = entry->view.dtype();
  // What torch_dtype widens keeps its bytes: its values are those of the wider type.
  const bool widened = state_->torch_dtype && (stored == DType::bf16 || stored == DType::f16) &&
                       !belongs_to(entry->name, state_->quantized);
  return std::string(torch_name(widened ? *state_->torch_dtype : stored));
}

PreTrainedModel& PreTrainedModel::to(const Device& device) & {
  const Target target = target_of(DeviceMap(device.name), "to");
  if (device.name == "auto" || target != state_->exec.target)
    throw bad_input("to: the model is on ", this->device(), "; load it with device_map ", printable(device.name));
  return *this;
}

PreTrainedModel&& PreTrainedModel::to(const Device& device) && { return std::move(to(device)); }
const std::vector<std::string>& PreTrainedModel::notes() const { return state_->notes; }

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
  writer.commit();
}

std::string version() { return NIBBLE_VERSION; }

}  // namespace nibble
