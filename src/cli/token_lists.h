// Files of token ids for commands that compare numbers: {"ids": [[1, 2, 3], [4]]}.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::cli {

using TokenLists = std::vector<std::vector<std::int32_t>>;

/// What the numbers must be.
struct TokenLimits {
  std::int64_t values = 0;               ///< each is less than this
  std::string_view noun = "token id ";   ///< "<noun>7 is outside ..."
  std::string_view what = "vocabulary";  ///< "the model's <what> of <values>"
  std::int64_t length = 0;               ///< most of them in a sequence; 0: no limit
};

/// The lists of `field`. Error(bad_input) naming file, field and what is wrong: missing, no list of lists of integers,
/// no sequence, an empty one, a number out of range, a sequence that is too long.
TokenLists read_token_lists(const std::string& file, std::string_view field, const TokenLimits& limits);
/// The same, nullopt when the file has no such field.
std::optional<TokenLists> find_token_lists(const std::string& file, std::string_view field, const TokenLimits& limits);

}  // namespace nibble::cli
