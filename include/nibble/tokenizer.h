// Tokenizers under the names of Transformers; see nibble.h.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

using TokenIds = std::vector<std::int32_t>;

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
  /// The folder that it was read from.
  std::string name_or_path() const;
  /// Copies the tokenizer's files into `folder`, which is made if need be.
  void save_pretrained(const std::string& folder) const;
  /// nibble has no network: always Error(bad_input), with the two steps that do it.
  [[noreturn]] void push_to_hub(const std::string& repository) const;

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

}  // namespace nibble
