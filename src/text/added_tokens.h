// The "added_tokens" of tokenizer.json: tokens found in the text before normalization and pre-tokenization.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/normalizer.h"
#include "text/vocabulary.h"

namespace nibble::text {

struct AddedToken {
  std::string content;
  bool single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
  bool operator==(const AddedToken&) const = default;
};

/// A stretch of text: an added token (id >= 0) or text between them (id < 0).
struct Stretch {
  std::string_view text;
  std::int32_t id;
  std::size_t begin;
};

class AddedTokens {
 public:
  /// Adds tokens as the tokenizers library does: a token that the model knows keeps that id, others get the next free
  /// one above the model's vocabulary and those added before (ids written in the file are not used by the library
  /// either).
  void add(AddedToken token, const Vocabulary& model);
  /// Call after the last add(): sets up the search.
  void finish(const Normalizer* normalizer);

  std::int32_t find(std::string_view content) const;  ///< -1 when there is none
  const AddedToken* token(std::int32_t id) const;     ///< nullptr when there is none
  bool is_special(std::string_view content) const;
  std::int32_t max_id() const { return max_id_; }

  /// Calls visit(Stretch) over a text in order. `normalized`: search for the tokens marked so, else for the others.
  /// Special tokens are found only when `parse_special`.
  template <class Visit>
  void split(std::string_view text, bool normalized, bool parse_special, Visit visit) const {
    const Searcher& searcher = normalized ? normalized_ : raw_;
    std::size_t done = 0;
    Found found{};
    for (std::size_t from = 0; searcher.find(text, from, found); from = found.end) {
      const AddedToken& token = tokens_[found.token];
      if (token.special && !parse_special) continue;
      if (!fits(text, token, done, found)) continue;
      const std::size_t end = found.strip_end;
      if (done < found.begin) visit(Stretch{text.substr(done, found.begin - done), -1, done});
      visit(Stretch{text.substr(found.begin, end - found.begin), ids_[found.token], found.begin});
      done = end;
    }
    if (done < text.size()) visit(Stretch{text.substr(done), -1, done});
  }

 private:
  struct Found {
    std::size_t begin, end;  ///< of the token itself; begin moves left with lstrip
    std::size_t strip_end;   ///< end with the white space that rstrip takes
    std::size_t token;
  };
  /// Leftmost-longest search for many strings: sorted, narrowed byte by byte.
  class Searcher {
   public:
    void build(std::vector<std::pair<std::string, std::uint32_t>> patterns);
    bool find(std::string_view text, std::size_t from, Found& found) const;

   private:
    bool longest_at(std::string_view text, std::size_t at, Found& found) const;
    std::vector<std::pair<std::string, std::uint32_t>> patterns_;
    std::vector<std::uint32_t> first_ = std::vector<std::uint32_t>(257, 0);  ///< where patterns of a first byte begin
    int only_first_ = -1;  ///< the one first byte of all patterns, if it is one
  };
  static bool fits(std::string_view text, const AddedToken& token, std::size_t done, Found& found);

  std::vector<AddedToken> tokens_;
  std::vector<std::int32_t> ids_;
  std::unordered_map<std::string, std::int32_t> by_content_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;
  std::unordered_map<std::string, bool> special_;
  Searcher raw_, normalized_;
  std::int32_t max_id_ = -1;
};

/// Reads the list `added_tokens`; throws Error(bad_input) beginning with `where`.
std::vector<AddedToken> read_added_tokens(const Json* json, const std::string& where);
/// One token from a string or an object with "content".
AddedToken read_added_token(const Json& json, const std::string& where);

}  // namespace nibble::text
