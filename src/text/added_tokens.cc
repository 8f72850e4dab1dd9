#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/model.h"
#include "text/unicode.h"

namespace nibble::text {

void AddedTokens::add(AddedToken token, const Vocabulary& model) {
  if (token.content.empty()) return;
  if (token.special) special_.emplace(token.content, true);
  std::int32_t id = find(token.content);
  if (id < 0) id = model.find(token.content);
  if (id < 0) {
    // The library counts the model's tokens; where ids have gaps that number may be taken, so go above the largest.
    const std::int32_t size = std::max(static_cast<std::int32_t>(model.size()), model.max_id() + 1);
    id = std::max(size, max_id_ + 1);
  }
  if (const AddedToken* known = this->token(id); known != nullptr && *known == token) return;
  const std::size_t index = tokens_.size();
  by_content_[token.content] = id;
  by_id_[id] = index;
  max_id_ = std::max(max_id_, id);
  tokens_.push_back(std::move(token));
  ids_.push_back(id);
}

void AddedTokens::finish(const Normalizer* normalizer) {
  std::vector<std::pair<std::string, std::uint32_t>> raw, normalized;
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (by_id_.at(ids_[i]) != i) continue;  // replaced by a later entry of the same id
    const AddedToken& token = tokens_[i];
    Normalized text{token.content, true};
    if (token.normalized && normalizer != nullptr) normalizer->apply(text);
    if (text.text.empty()) continue;
    (token.normalized ? normalized : raw).emplace_back(std::move(text.text), static_cast<std::uint32_t>(i));
  }
  raw_.build(std::move(raw));
  normalized_.build(std::move(normalized));
}

std::int32_t AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? -1 : found->second;
}

const AddedToken* AddedTokens::token(std::int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

bool AddedTokens::is_special(std::string_view content) const { return special_.count(std::string(content)) != 0; }

void AddedTokens::Searcher::build(std::vector<std::pair<std::string, std::uint32_t>> patterns) {
  patterns_ = std::move(patterns);
  // Equal patterns: the token given first wins, as in the library's automaton.
  std::stable_sort(patterns_.begin(), patterns_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  patterns_.erase(
      std::unique(patterns_.begin(), patterns_.end(), [](const auto& a, const auto& b) { return a.first == b.first; }),
      patterns_.end());
  int distinct = 0;
  for (std::size_t byte = 0, at = 0; byte < 256; ++byte) {
    first_[byte] = static_cast<std::uint32_t>(at);
    while (at < patterns_.size() && static_cast<unsigned char>(patterns_[at].first[0]) == byte) ++at;
    first_[byte + 1] = static_cast<std::uint32_t>(at);
    if (first_[byte + 1] > first_[byte]) ++distinct, only_first_ = static_cast<int>(byte);
  }
  if (distinct != 1) only_first_ = -1;
}

bool AddedTokens::Searcher::find(std::string_view text, std::size_t from, Found& found) const {
  if (patterns_.empty()) return false;
  for (std::size_t at = from; at < text.size(); ++at) {
    if (only_first_ >= 0) {
      at = text.find(static_cast<char>(only_first_), at);
      if (at == std::string_view::npos) return false;
    }
    if (longest_at(text, at, found)) return true;
  }
  return false;
}

bool AddedTokens::Searcher::longest_at(std::string_view text, std::size_t at, Found& found) const {
  const auto lead = static_cast<unsigned char>(text[at]);
  auto begin = patterns_.begin() + first_[lead], end = patterns_.begin() + first_[lead + 1];
  std::size_t longest = 0;
  for (std::size_t depth = 1; begin != end; ++depth) {
    if (begin->first.size() == depth) {  // sorts before its continuations
      longest = depth;
      found.token = begin->second;
      ++begin;
    }
    if (begin == end || at + depth >= text.size()) break;
    const auto next = static_cast<unsigned char>(text[at + depth]);
    const auto byte = [depth](const auto& pattern) { return static_cast<unsigned char>(pattern.first[depth]); };
    begin = std::partition_point(begin, end, [&](const auto& pattern) { return byte(pattern) < next; });
    end = std::partition_point(begin, end, [&](const auto& pattern) { return byte(pattern) == next; });
  }
  found.begin = at;
  found.end = at + longest;
  return longest > 0;
}

bool AddedTokens::fits(std::string_view text, const AddedToken& token, std::size_t done, Found& found) {
  found.strip_end = found.end;
  if (token.single_word) {
    if (found.begin > 0 && is_word(char_before(text, found.begin).code)) return false;
    if (found.end < text.size() && is_word(char_at(text, found.end).code)) return false;
  }
  if (token.lstrip) {
    while (found.begin > done) {
      const Char before = char_before(text, found.begin);
      if (!is_whitespace(before.code)) break;
      found.begin = before.begin;
    }
  }
  while (token.rstrip && found.strip_end < text.size()) {
    const Char after = char_at(text, found.strip_end);
    if (!is_whitespace(after.code)) break;
    found.strip_end += after.size;
  }
  found.begin = std::max(found.begin, done);
  found.strip_end = std::max(found.strip_end, found.begin);
  return true;
}

AddedToken read_added_token(const Json& json, const std::string& where) {
  AddedToken token;
  if (json.is_string()) {
    token.content = json.string(where);
    token.special = true;
    token.normalized = false;
    return token;
  }
  json.object(where);
  if (json.get("content") == nullptr) throw bad_input(where, ": no content");
  token.content = read_text(json, "content", "", where);
  token.single_word = read_flag(json, "single_word", false, where);
  token.lstrip = read_flag(json, "lstrip", false, where);
  token.rstrip = read_flag(json, "rstrip", false, where);
  token.special = read_flag(json, "special", false, where);
  token.normalized = read_flag(json, "normalized", !token.special, where);
  return token;
}

std::vector<AddedToken> read_added_tokens(const Json* json, const std::string& where) {
  std::vector<AddedToken> tokens;
  if (json == nullptr || json->is_null()) return tokens;
  const Json::Array& list = json->array(where);
  for (std::size_t i = 0; i < list.size(); ++i) tokens.push_back(read_added_token(list[i], cat(where, "[", i, "]")));
  return tokens;
}

}  // namespace nibble::text
