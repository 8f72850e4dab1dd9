// The public tokenizer (include/nibble/nibble.h).
#include <array>
#include <filesystem>

#include "api/tokenizer_state.h"
#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"

namespace nibble {
namespace fs = std::filesystem;

BatchEncoding PreTrainedTokenizer::operator()(std::string_view text) const { return {{encode(text)}}; }

BatchEncoding PreTrainedTokenizer::operator()(const std::vector<std::string>& texts) const {
  BatchEncoding out;
  for (const std::string& text : texts) out.input_ids.push_back(encode(text));
  return out;
}

TokenIds PreTrainedTokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return state_->tokenizer->encode(text, {.add_special = add_special_tokens});
}

std::string PreTrainedTokenizer::decode(const TokenIds& ids, const DecodeOptions& options) const {
  return state_->tokenizer->decode(ids, options.skip_special_tokens);
}

std::int64_t PreTrainedTokenizer::vocab_size() const { return state_->tokenizer->vocab_size(); }
std::optional<std::int32_t> PreTrainedTokenizer::bos_token_id() const { return state_->tokenizer->bos_id(); }
std::optional<std::int32_t> PreTrainedTokenizer::eos_token_id() const { return state_->tokenizer->eos_id(); }

std::string PreTrainedTokenizer::name_or_path() const { return state_->folder.string(); }

void PreTrainedTokenizer::save_pretrained(const std::string& folder) const {
  static constexpr std::array names{"tokenizer.json",    "tokenizer_config.json", "special_tokens_map.json",
                                    "added_tokens.json", "tokenizer.model",       "vocab.json",
                                    "merges.txt",        "chat_template.jinja"};
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw runtime_failure("cannot make the folder ", printable(folder), ": ", failed.message());
  if (fs::equivalent(folder, state_->folder, failed)) return;
  for (const char* name : names) {
    const fs::path from = state_->folder / name;
    if (fs::is_regular_file(from, failed)) write_file_atomically(fs::path(folder) / name, read_file(from));
  }
}

PreTrainedTokenizer AutoTokenizer::from_pretrained(const std::string& name) {
  const fs::path path = resolve_model(name);
  std::error_code failed;
  const bool weights = fs::is_regular_file(path, failed) && path.extension() != ".json" && path.extension() != ".model";
  auto state = std::make_shared<PreTrainedTokenizer::State>();
  state->tokenizer = Tokenizer::open(weights ? path.parent_path() : path);
  state->folder = fs::is_directory(path, failed) ? path : path.parent_path();
  PreTrainedTokenizer tokenizer;
  tokenizer.state_ = std::move(state);
  return tokenizer;
}

}  // namespace nibble
