// What tokenizer_config.json, special_tokens_map.json and config.json say about a tokenizer.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "text/added_tokens.h"

namespace nibble::text {

struct TokenizerConfig {
  std::string tokenizer_class;
  std::optional<AddedToken> bos, eos, unk;
  std::vector<AddedToken> specials;  ///< every named and additional special token, in order of the file
  std::vector<std::pair<std::int64_t, AddedToken>> added;  ///< added_tokens_decoder, by id
  std::optional<bool> add_bos, add_eos, legacy, add_prefix_space;
  std::optional<std::int64_t> model_bos_id, model_eos_id;  ///< from config.json, for folders without the other files
};

/// Reads what of these files lies in `folder`; missing ones are no error. Throws Error(bad_input).
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

}  // namespace nibble::text
