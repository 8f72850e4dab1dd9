// Writing on from a prompt: one token after the other until an end token, a stop string, or a limit.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "run/model.h"
#include "run/sampler.h"
#include "text/tokenizer.h"

namespace nibble {

struct GenerateOptions {
  SamplingOptions sampling;
  std::int64_t max_new_tokens = 0;            ///< 0: until the context is full
  std::vector<std::int32_t> eos_ids;          ///< tokens that end the answer
  std::optional<std::int32_t> decoder_start;  ///< encoder-decoders: the answer's decoder begins with this token
  std::vector<std::string> stop;  ///< texts that end the answer; they never appear in it, nor does a part of one
};

/// What generation_config.json asks for (sampling, end tokens, the decoder's first token, max_new_tokens); tokens and
/// the older spelling of the rest from config.json where it is silent. Throws Error(bad_input) naming file and field.
GenerateOptions default_generate_options(const Checkpoint& checkpoint);

enum class StopReason : std::uint8_t {
  eos,        ///< an end token
  stop_text,  ///< a stop string
  length,     ///< max_new_tokens
  context,    ///< the context is full
  caller,     ///< the callback said so
};

struct Generated {
  std::vector<std::int32_t> ids;  ///< all tokens chosen, an end token included
  std::string text;               ///< without special tokens; empty without a tokenizer
  StopReason reason = StopReason::length;
  std::int64_t prompt_tokens = 0;
  double prompt_seconds = 0;    ///< up to the first token
  double generate_seconds = 0;  ///< for the others
};

/// Called for each token with the text that it completed (often none) and once more, with id -1, for text that was held
/// back at the end. The texts joined are Generated::text. False ends the answer.
using TokenCallback = std::function<bool(std::int32_t id, std::string_view text)>;

/// `tokenizer` may be null: then there is no text and no stop string. Throws Error(bad_input) when the prompt is empty
/// or longer than the context (both numbers are named). An encoder-decoder's encoder reads the prompt, and its decoder
/// begins with options.decoder_start, which must be there.
Generated generate(Model& model, std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> prompt,
                   const GenerateOptions& options, Exec& exec, const TokenCallback& on_token = {});

/// Holds text back as long as it could be the beginning of a stop string.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stop);
  /// Text that is safe to show now. After a stop string was found (see stopped) there is none any more.
  std::string push(std::string_view text);
  /// What was held back, when the text has ended.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace nibble
