// Tokenizers as Hugging Face files define them: tokenizer.json, or a sentencepiece tokenizer.model when there is none.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

struct EncodeOptions {
  bool add_special = true;    ///< let the post-processor add BOS / EOS / [CLS] ...
  bool parse_special = true;  ///< find special tokens written out in the text, as Transformers does
};

class Tokenizer {
 public:
  /// From a model folder (tokenizer.json, tokenizer_config.json, special_tokens_map.json, tokenizer.model) or one of
  /// those files. Throws Error(bad_input) naming file and reason.
  static std::shared_ptr<const Tokenizer> open(const std::filesystem::path& folder_or_file);
  virtual ~Tokenizer() = default;

  /// Ids of a text in UTF-8. Invalid bytes are an Error(bad_input) with their offset.
  virtual std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  /// Text of ids. Ids outside the vocabulary are an Error(bad_input).
  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const = 0;

  virtual std::int64_t vocab_size() const = 0;  ///< largest id + 1, added tokens included
  virtual std::optional<std::int32_t> token_to_id(std::string_view token) const = 0;
  /// nullopt for an id without a token.
  virtual std::optional<std::string> id_to_token(std::int32_t id) const = 0;
  virtual bool is_special(std::int32_t id) const = 0;
  virtual std::optional<std::int32_t> bos_id() const = 0;
  virtual std::optional<std::int32_t> eos_id() const = 0;
  /// Whether encode() with add_special puts BOS in front.
  virtual bool adds_bos() const = 0;
};

/// Turns a stream of ids into text piece by piece. A piece never ends inside a UTF-8 character; the pieces joined are
/// decode() of all ids.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  ~StreamDecoder();
  /// The text that `id` completes (may be empty).
  std::string push(std::int32_t id);
  /// What is left at the end (incomplete characters become U+FFFD).
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
