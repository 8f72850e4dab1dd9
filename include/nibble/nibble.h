// nibble as a library, under the names people know from Transformers:
//
//   #include <nibble/nibble.h>
//   auto tokenizer = nibble::AutoTokenizer::from_pretrained("org/name");
//   auto model = nibble::AutoModelForCausalLM::from_pretrained("org/name", {.quantization_config = {{.weights =
//   "int8"}}}); auto output = model.generate(tokenizer("Once upon a time"), {.max_new_tokens = 20}); std::cout <<
//   tokenizer.decode(output.at(0), {.skip_special_tokens = true});
//
// Every call throws nibble::Error (see error.h) with one line that says what is wrong. A model is used by one thread at
// a time; a tokenizer by any number.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/error.h"

namespace nibble {

using TokenIds = std::vector<std::int32_t>;

/// Quanto's linear quantization. Weights of linear layers are quantized while the model loads.
struct QuantoConfig {
  std::string weights = "int8";            ///< int8, int4, int2, float8 (e4m3fn), float8_e5m2, float8_e4m3fnuz
  std::optional<std::string> activations;  ///< not while loading: activations need calibration (`nibble quantize`)
  std::optional<std::vector<std::string>> modules_to_not_convert;  ///< default: the output head, lm_head
};

/// How from_pretrained loads a model.
struct PretrainedOptions {
  std::string torch_dtype = "auto";  ///< arithmetic of matrix products: float32, bfloat16, float16; auto: bfloat16 for
                                     ///< bf16 checkpoints, else float32
  std::string device_map = "auto";   ///< "auto" and "cpu": this machine's cores; "ref": slow scalar arithmetic
  std::optional<QuantoConfig> quantization_config;
  int threads = 0;  ///< 0: one per core
  std::function<void(std::string_view task, std::int64_t done, std::int64_t total)> progress;
};

/// What a tokenizer makes of texts: one row of ids per text.
struct BatchEncoding {
  std::vector<TokenIds> input_ids;
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

class PreTrainedTokenizer {
 public:
  BatchEncoding operator()(std::string_view text) const;
  BatchEncoding operator()(const std::vector<std::string>& texts) const;
  TokenIds encode(std::string_view text, bool add_special_tokens = true) const;
  std::string decode(const TokenIds& ids, const DecodeOptions& options = {}) const;
  std::int64_t vocab_size() const;
  std::optional<std::int32_t> bos_token_id() const;
  std::optional<std::int32_t> eos_token_id() const;
  /// Copies the tokenizer's files into `folder`, which is made if need be.
  void save_pretrained(const std::string& folder) const;

 private:
  friend struct AutoTokenizer;
  friend class PreTrainedModel;
  struct State;
  std::shared_ptr<const State> state_;
};

struct AutoTokenizer {
  /// From a model folder or file, or org/name[@revision] in the Hugging Face cache.
  static PreTrainedTokenizer from_pretrained(const std::string& name);
};

/// What is not set follows the model's generation_config.json.
struct GenerationConfig {
  std::optional<std::int64_t> max_new_tokens;  ///< default 20, as in Transformers
  std::optional<bool> do_sample;               ///< false: always the likeliest token
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k;
  std::uint64_t seed = 0;
  std::function<bool(std::int32_t id)> streamer;  ///< called with each new token; false ends the text
};

struct PerplexityConfig {
  std::string protocol = "gptq";  ///< gptq, llama.cpp, autogptq, hf-stride, lm-eval
  std::int64_t ctx = 0;           ///< tokens per window; 0: the protocol's default
  std::int64_t stride = 0;        ///< hf-stride only; 0: its default
  std::int64_t max_windows = 0;   ///< 0: all
};

struct Perplexity {
  double value = 0;
  double standard_error = 0;
  std::int64_t tokens = 0, windows = 0;
};

struct SaveOptions {
  std::string max_shard_size = "5GB";
};

class PreTrainedModel {
 public:
  PreTrainedModel(PreTrainedModel&&) noexcept;
  PreTrainedModel& operator=(PreTrainedModel&&) noexcept;
  ~PreTrainedModel();

  /// Prompt and new tokens of every row of `inputs`.
  std::vector<TokenIds> generate(const BatchEncoding& inputs, const GenerationConfig& config = {});
  TokenIds generate(const TokenIds& input_ids, const GenerationConfig& config = {});
  /// Logits [input_ids.size(), vocab_size], row by row.
  std::vector<float> logits(const TokenIds& input_ids);
  Perplexity perplexity(const PreTrainedTokenizer& tokenizer, const std::string& text,
                        const PerplexityConfig& config = {});

  /// Loads a LoRA adapter as PEFT saves it (a folder, or org/name in the Hugging Face cache) and uses it from now on,
  /// beside those in use, whatever the base's scheme. `scale` multiplies the adapter's own scaling. Returns its name:
  /// `adapter_name`, or the last part of the path. save_pretrained() still writes the base alone.
  std::string load_adapter(const std::string& path, double scale = 1, const std::string& adapter_name = "");
  /// Uses only these adapters from now on.
  void set_adapter(const std::vector<std::string>& adapter_names);
  /// The base alone / with its adapters again.
  void disable_adapters();
  void enable_adapters();
  std::vector<std::string> active_adapters() const;

  /// Bytes of all weights as they lie in memory: codes, scales and what is not quantized; shared weights once.
  std::int64_t get_memory_footprint() const;
  std::int64_t num_parameters() const;
  std::int64_t vocab_size() const;
  std::int64_t context_length() const;

  /// Writes weights, config.json, tokenizer and other side files: what from_pretrained and, for Quanto, the
  /// optimum-quanto library load. The folder appears whole or not at all.
  void save_pretrained(const std::string& folder, const SaveOptions& options = {}) const;

 private:
  friend struct AutoModelForCausalLM;
  struct State;
  explicit PreTrainedModel(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct AutoModelForCausalLM {
  /// From a model folder or file, or org/name[@revision] in the Hugging Face cache. Quantized checkpoints are
  /// recognised from their own files.
  static PreTrainedModel from_pretrained(const std::string& name, const PretrainedOptions& options = {});
};

/// "0.1.0".
std::string version();

}  // namespace nibble
