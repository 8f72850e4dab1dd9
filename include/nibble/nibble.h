// nibble as a library, under the names people know from Transformers:
//
//   #include <nibble/nibble.h>
//   auto tokenizer = nibble::AutoTokenizer::from_pretrained("org/name");
//   auto model = nibble::AutoModelForCausalLM::from_pretrained(
//       "org/name", {.quantization_config = nibble::QuantoConfig{.weights = "int8"}});
//   auto output = model.generate(tokenizer("Once upon a time"), {.max_new_tokens = 20});
//   std::cout << tokenizer.decode(output.at(0), {.skip_special_tokens = true});
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

#include "nibble/config.h"
#include "nibble/error.h"
#include "nibble/tokenizer.h"

namespace nibble {

/// How from_pretrained loads a model.
struct PretrainedOptions {
  /// float32, bfloat16 or float16: dtype of what is not quantized (values are rounded to it; wider types change no
  /// value and take no memory) and arithmetic of matrix products. auto: as stored; bfloat16 arithmetic for bf16
  /// checkpoints, else float32. bnb_4bit_compute_dtype, where given, decides the arithmetic.
  std::string torch_dtype = "auto";
  DeviceMap device_map{};
  MaxMemory max_memory{};  ///< the sum bounds weights and KV cache together: Error(bad_input) when they need more
  std::optional<QuantizationConfig> quantization_config{};
  bool load_in_8bit = false;                         ///< short for BitsAndBytesConfig{.load_in_8bit = true}
  bool load_in_4bit = false;                         ///< short for BitsAndBytesConfig{.load_in_4bit = true}
  std::optional<std::string> attn_implementation{};  ///< a name of Transformers; nibble has one attention for all
  int threads = 0;                                   ///< 0: one per core
  std::function<void(std::string_view task, std::int64_t done, std::int64_t total)> progress{};
};

/// What is not set follows the model's generation_config.json.
struct GenerationConfig {
  std::optional<std::int64_t> max_new_tokens{};  ///< default 20, as in Transformers
  std::optional<std::int64_t> max_length{};      ///< prompt and new tokens together; max_new_tokens comes before it
  std::optional<bool> do_sample{};               ///< false: always the likeliest token
  std::optional<double> temperature{}, top_p{}, min_p{}, repetition_penalty{};
  std::optional<std::int64_t> top_k{};
  std::optional<std::int32_t> pad_token_id{};  ///< changes nothing: rows are never padded
  std::uint64_t seed = 0;
  std::function<bool(std::int32_t id)> streamer{};  ///< called with each new token; false ends the text
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

  /// Bytes of all weights as they lie in memory: codes, scales and what is not quantized; shared weights once. With
  /// `as_transformers` the number that Transformers 5 gives for the model: parameters and buffers, rotary tables
  /// included, but neither scales nor tables of bitsandbytes, and Quanto's weights at their size before quantization.
  std::int64_t get_memory_footprint(bool as_transformers = false) const;
  std::int64_t num_parameters() const;
  std::int64_t vocab_size() const;
  std::int64_t context_length() const;

  /// "cpu": where the weights are. And the dtype of a tensor ("float32", "int8"), with the names of Transformers'
  /// module tree, where a number below 0 counts from the last layer: "model.decoder.layers.-1.final_layer_norm.weight".
  /// Error(bad_input) when there is no such tensor.
  std::string device() const;
  std::string dtype_of(const std::string& tensor) const;
  /// All memory is this machine's: nothing moves. Error(bad_input) for devices that nibble has not.
  PreTrainedModel& to(const Device& device) &;
  PreTrainedModel&& to(const Device& device) &&;
  /// What from_pretrained was asked for and did not need, one line each.
  const std::vector<std::string>& notes() const;

  /// Writes weights, config.json, tokenizer and other side files: what from_pretrained and, for Quanto, the
  /// optimum-quanto library load. The folder appears whole or not at all.
  void save_pretrained(const std::string& folder, const SaveOptions& options = {}) const;
  /// nibble has no network: always Error(bad_input), with the two steps that do it.
  [[noreturn]] void push_to_hub(const std::string& repository) const;

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
