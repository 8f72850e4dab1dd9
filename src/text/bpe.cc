// Byte pair encoding (Sennrich et al. 2016) as the tokenizers library runs it: start from characters (or from byte
// tokens where a character is unknown), then merge the adjacent pair of lowest rank, leftmost first, until none is
// left.
#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <unordered_set>

#include "base/error.h"
#include "text/hash.h"
#include "text/model.h"
#include "text/unicode.h"
#include "text/word_cache.h"

namespace nibble::text {
namespace {

constexpr std::uint32_t kNoRank = 0xffffffff;
constexpr std::string_view kMetaspace = "\xe2\x96\x81";  // U+2581

/// (left id, right id) -> (rank, merged id): open addressing, 16 bytes a slot.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = kNoRank;
    std::int32_t id = -1;
  };

  void reserve(std::size_t merges) {
    std::size_t slots = 16;
    while (slots < merges * 2) slots *= 2;
    slots_.assign(slots, {});
  }
  /// The later of two equal pairs wins, as in the library.
  void set(std::int32_t left, std::int32_t right, Merge merge) {
    const std::uint64_t key = key_of(left, right);
    Slot& slot = slots_[position(key)];
    slot = {key, merge};
  }
  Merge find(std::int32_t left, std::int32_t right) const {
    const Slot& slot = slots_[position(key_of(left, right))];
    return slot.merge;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge;
  };
  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t position(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = hash_integer(key) & mask;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask;
    return at;
  }
  std::vector<Slot> slots_ = std::vector<Slot>(16);
};

class Bpe : public Model {
 public:
  Bpe(const Json& json, const std::string& where);
  std::unique_ptr<Session> session() const override;

 private:
  friend class BpeSession;
  void read_merges(const Json& json, const std::string& where);
  void add_merge(std::string_view left, std::string_view right, std::uint32_t rank, const std::string& where);
  void find_boundaries();

  std::string where_;
  std::string prefix_, suffix_;  ///< continuing_subword_prefix, end_of_word_suffix
  std::optional<std::string> unk_;
  bool fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
  MergeTable merges_;
  std::array<std::int32_t, 0x800> char_id_{};  ///< ids of one- and two-byte characters, -1 for none
  std::array<std::int32_t, 256> byte_id_{};    ///< ids of <0x00> .. <0xFF>, -1 for none
  bool split_metaspace_ = false;               ///< see find_boundaries
  std::unordered_set<char32_t> glued_;         ///< characters that some merge joins with a following U+2581
};

class BpeSession : public Model::Session {
 public:
  explicit BpeSession(const Bpe& bpe) : bpe_(bpe) {}
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) override;

 private:
  struct Symbol {
    std::int32_t id;
    std::int32_t previous, next;  ///< positions, -1 at the ends
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
    std::int32_t id;
    bool operator<(const Candidate& other) const {  // std::push_heap keeps the largest first: invert
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids);
  void merge_word(std::string_view word, std::vector<std::int32_t>& ids);
  void split_characters(std::string_view word);
  std::int32_t lookup(std::string_view character, bool first, bool last);
  bool add_bytes(std::string_view text);
  std::int32_t unknown() const;
  void merge_short();
  void merge_long();
  void push_candidate(std::int32_t position);

  const Bpe& bpe_;
  WordCache cache_;
  std::vector<std::int32_t> word_;  ///< ids of the word in work
  std::vector<std::uint32_t> ranks_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  std::string written_;
};

Bpe::Bpe(const Json& json, const std::string& where) : where_(where) {
  read_vocabulary(json, where, vocabulary_);
  prefix_ = read_text(json, "continuing_subword_prefix", "", where);
  suffix_ = read_text(json, "end_of_word_suffix", "", where);
  if (json.get("unk_token") != nullptr) unk_ = read_text(json, "unk_token", "", where);
  fuse_unk_ = read_flag(json, "fuse_unk", false, where);
  byte_fallback_ = read_flag(json, "byte_fallback", false, where);
  ignore_merges_ = read_flag(json, "ignore_merges", false, where);
  read_merges(json, where);
  std::string text;
  for (char32_t c = 0; c < char_id_.size(); ++c) {
    text.clear();
    utf8_append(text, c);
    char_id_[c] = vocabulary_.find(text);
  }
  for (int byte = 0; byte < 256; ++byte) {
    static constexpr char digits[] = "0123456789ABCDEF";
    const char token[] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
    byte_id_[static_cast<std::size_t>(byte)] = vocabulary_.find({token, sizeof token});
  }
  find_boundaries();
}

void Bpe::read_merges(const Json& json, const std::string& where) {
  const Json* merges = json.get("merges");
  if (merges == nullptr) throw bad_input(where, ": no merges");
  const Json::Array& list = merges->array(where + ".merges");
  merges_.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string here = cat(where, ".merges[", i, "]");
    std::string_view left, right;
    if (list[i].is_array()) {
      const Json::Array& pair = list[i].array(here);
      if (pair.size() != 2) throw bad_input(here, ": ", pair.size(), " strings instead of 2");
      left = pair[0].string(here);
      right = pair[1].string(here);
    } else {
      const std::string_view both = list[i].string(here);
      const std::size_t space = both.find(' ');
      if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) {
        throw bad_input(here, ": \"", printable(both), "\" is not two tokens with a space between");
      }
      left = both.substr(0, space);
      right = both.substr(space + 1);
    }
    add_merge(left, right, static_cast<std::uint32_t>(i), here);
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, std::uint32_t rank, const std::string& where) {
  const auto id_of = [&](std::string_view token) {
    const std::int32_t id = vocabulary_.find(token);
    if (id < 0) throw bad_input(where, ": token \"", printable(token), "\" is not in the vocabulary");
    return id;
  };
  const std::int32_t left_id = id_of(left), right_id = id_of(right);
  if (right.size() < prefix_.size()) {
    throw bad_input(where, ": \"", printable(right), "\" is shorter than continuing_subword_prefix");
  }
  const std::string merged = std::string(left) + std::string(right.substr(prefix_.size()));
  const std::int32_t merged_id = id_of(merged);
  // An empty token on one side would merge a token into itself for ever.
  if (left.empty() || right.size() == prefix_.size()) throw bad_input(where, ": merges with an empty token");
  if (right.starts_with(kMetaspace)) glued_.insert(char_before(left, left.size()).code);
  merges_.set(left_id, right_id, {rank, merged_id});
}

/// Metaspace models without a pre-tokenizer take a whole text as one word. No merge of such a vocabulary joins
/// something that ends in another character with something that begins with U+2581 (a few characters aside), so the
/// text may be cut before every U+2581 that follows a known character other than those: exactly the same merges happen
/// on both sides, and short words can be cached.
void Bpe::find_boundaries() {
  if (!prefix_.empty() || !suffix_.empty() || ignore_merges_ || vocabulary_.find(kMetaspace) < 0) return;
  if (unk_ && unk_->ends_with(kMetaspace)) return;
  split_metaspace_ = true;
}

std::unique_ptr<Model::Session> Bpe::session() const { return std::make_unique<BpeSession>(*this); }

void BpeSession::encode(std::string_view piece, std::vector<std::int32_t>& ids) {
  if (!bpe_.split_metaspace_) return encode_word(piece, ids);
  std::size_t begin = 0;
  for (std::size_t at = piece.find(kMetaspace, 1); at != std::string_view::npos; at = piece.find(kMetaspace, at + 3)) {
    const Char before = char_before(piece, at);
    if (bpe_.glued_.count(before.code) != 0) continue;
    if (bpe_.vocabulary().find(piece.substr(before.begin, before.size)) < 0) continue;
    encode_word(piece.substr(begin, at - begin), ids);
    begin = at;
  }
  encode_word(piece.substr(begin), ids);
}

void BpeSession::encode_word(std::string_view word, std::vector<std::int32_t>& ids) {
  if (cache_.get(word, ids)) return;
  const std::size_t begin = ids.size();
  if (const std::int32_t whole = bpe_.ignore_merges_ ? bpe_.vocabulary().find(word) : -1; whole >= 0) {
    ids.push_back(whole);
  } else {
    merge_word(word, ids);
  }
  cache_.put(word, std::span(ids).subspan(begin));
}

void BpeSession::merge_word(std::string_view word, std::vector<std::int32_t>& ids) {
  word_.clear();
  split_characters(word);
  if (word_.size() <= 48) {
    merge_short();
  } else {
    merge_long();
  }
  ids.insert(ids.end(), word_.begin(), word_.end());
}

std::int32_t BpeSession::lookup(std::string_view character, bool first, bool last) {
  const bool decorated = (!first && !bpe_.prefix_.empty()) || (last && !bpe_.suffix_.empty());
  if (!decorated && character.size() <= 2) return bpe_.char_id_[char_at(character, 0).code];
  if (!decorated) return bpe_.vocabulary().find(character);
  written_.assign(first ? "" : bpe_.prefix_).append(character).append(last ? bpe_.suffix_ : "");
  return bpe_.vocabulary().find(written_);
}

bool BpeSession::add_bytes(std::string_view text) {
  const auto id = [&](char byte) { return bpe_.byte_id_[static_cast<unsigned char>(byte)]; };
  if (std::any_of(text.begin(), text.end(), [&](char byte) { return id(byte) < 0; })) return false;
  for (const char byte : text) word_.push_back(id(byte));
  return true;
}

std::int32_t BpeSession::unknown() const {
  const std::int32_t id = bpe_.vocabulary().find(*bpe_.unk_);
  if (id < 0) throw bad_input(bpe_.where_, ": unk_token \"", printable(*bpe_.unk_), "\" is not in the vocabulary");
  return id;
}

void BpeSession::split_characters(std::string_view word) {
  std::int32_t pending = -1;  // an unknown token not yet written, so that the next one can join it (fuse_unk)
  for (std::size_t at = 0; at < word.size();) {
    const Char c = char_at(word, at);
    const std::string_view text = word.substr(at, c.size);
    const bool first = at == 0;
    at += c.size;
    const bool last = at == word.size();
    const std::int32_t id = lookup(text, first, last);
    if (id >= 0) {
      if (pending >= 0) word_.push_back(pending);
      pending = -1;
      word_.push_back(id);
      continue;
    }
    const bool decorated = (!first && !bpe_.prefix_.empty()) || (last && !bpe_.suffix_.empty());
    // As in the library, byte tokens come before a pending unknown one.
    if (bpe_.byte_fallback_ && add_bytes(decorated ? std::string_view(written_) : text)) continue;
    if (!bpe_.unk_) continue;  // the library drops what it cannot write
    if (pending >= 0 && !bpe_.fuse_unk_) word_.push_back(pending);
    pending = unknown();
  }
  if (pending >= 0) word_.push_back(pending);
}

/// Short words: the rank of every adjacent pair in an array, the lowest found by looking at all.
void BpeSession::merge_short() {
  std::size_t count = word_.size();
  if (count < 2) return;
  ranks_.assign(count, kNoRank);
  const auto rank = [&](std::size_t i) { return bpe_.merges_.find(word_[i], word_[i + 1]).rank; };
  for (std::size_t i = 0; i + 1 < count; ++i) ranks_[i] = rank(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (ranks_[i] < ranks_[best]) best = i;
    }
    if (ranks_[best] == kNoRank) break;
    word_[best] = bpe_.merges_.find(word_[best], word_[best + 1]).id;
    std::copy(word_.begin() + static_cast<std::ptrdiff_t>(best) + 2, word_.begin() + static_cast<std::ptrdiff_t>(count),
              word_.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(ranks_.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              ranks_.begin() + static_cast<std::ptrdiff_t>(count),
              ranks_.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    if (best > 0) ranks_[best - 1] = rank(best - 1);
    ranks_[best] = best + 1 < count ? rank(best) : kNoRank;
  }
  word_.resize(count);
}

void BpeSession::push_candidate(std::int32_t position) {
  const Symbol& left = symbols_[static_cast<std::size_t>(position)];
  const MergeTable::Merge merge = bpe_.merges_.find(left.id, symbols_[static_cast<std::size_t>(left.next)].id);
  if (merge.rank == kNoRank) return;
  heap_.push_back({merge.rank, position, merge.id});
  std::push_heap(heap_.begin(), heap_.end());
}

/// Long words: linked list and heap, n log n. An entry whose pair has changed since is skipped.
void BpeSession::merge_long() {
  symbols_.clear();
  heap_.clear();
  const auto count = static_cast<std::int32_t>(word_.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols_.push_back({word_[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  }
  for (std::int32_t i = 0; i + 1 < count; ++i) {
    const MergeTable::Merge merge =
        bpe_.merges_.find(word_[static_cast<std::size_t>(i)], word_[static_cast<std::size_t>(i) + 1]);
    if (merge.rank != kNoRank) heap_.push_back({merge.rank, i, merge.id});
  }
  std::make_heap(heap_.begin(), heap_.end());
  while (!heap_.empty()) {
    const Candidate best = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end());
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<std::size_t>(best.position)];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<std::size_t>(left.next)];
    if (bpe_.merges_.find(left.id, right.id).id != best.id) continue;
    left.id = best.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols_[static_cast<std::size_t>(left.next)].previous = best.position;
    if (left.previous >= 0) push_candidate(left.previous);
    if (left.next >= 0) push_candidate(best.position);
  }
  word_.clear();
  for (const Symbol& symbol : symbols_) {
    if (symbol.id >= 0) word_.push_back(symbol.id);
  }
}

}  // namespace

std::unique_ptr<Model> read_bpe(const Json& json, const std::string& where) {
  return std::make_unique<Bpe>(json, where);
}

}  // namespace nibble::text
