// Unigram language model (Kudo 2018): the segmentation with the highest sum of token scores, by Viterbi over bytes.
// Ties and unknown characters as the tokenizers library treats them: the first found path stays, an unknown character
// costs the lowest score minus 10, and neighbouring unknown characters become one piece.
#include <limits>
#include <memory>
#include <optional>

#include "base/error.h"
#include "text/byte_trie.h"
#include "text/model.h"
#include "text/unicode.h"
#include "text/word_cache.h"

namespace nibble::text {
namespace {

constexpr double kUnknownPenalty = 10.0;

class Unigram : public Model {
 public:
  Unigram(const Json& json, const std::string& where);
  std::unique_ptr<Session> session() const override;

 private:
  friend class UnigramSession;
  std::string where_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  std::optional<std::int32_t> unk_;
  bool byte_fallback_ = false;
  std::unique_ptr<ByteTrie> trie_;
};

class UnigramSession : public Model::Session {
 public:
  explicit UnigramSession(const Unigram& model) : model_(model) {}
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) override;

 private:
  struct Node {
    double score;
    std::int32_t id;
    std::uint32_t size;  ///< bytes of the token that ends here; 0 when none does
  };
  void relax(std::size_t end, std::size_t size, std::int32_t id, double score);
  void find_path(std::string_view piece);
  void emit(std::string_view token, std::int32_t id, std::vector<std::int32_t>& ids) const;

  const Unigram& model_;
  WordCache cache_;
  std::vector<Node> ends_;
  std::vector<std::pair<std::uint32_t, std::int32_t>> path_;  ///< (bytes, id) from the end
};

Unigram::Unigram(const Json& json, const std::string& where) : where_(where) {
  const Json* vocab = json.get("vocab");
  if (vocab == nullptr) throw bad_input(where, ": no vocab");
  const Json::Array& list = vocab->array(where + ".vocab");
  if (list.size() >= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw bad_input(where, ".vocab: ", list.size(), " tokens");
  }
  vocabulary_.reserve(list.size());
  double lowest = std::numeric_limits<double>::infinity();
  std::vector<std::pair<std::string_view, std::int32_t>> keys;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string here = cat(where, ".vocab[", i, "]");
    const Json::Array& pair = list[i].array(here);
    if (pair.size() != 2) throw bad_input(here, ": not a [token, score] pair");
    const std::string& token = pair[0].string(here);
    scores_.push_back(pair[1].number(here));
    lowest = std::min(lowest, scores_.back());
    if (!vocabulary_.add(token, static_cast<std::int32_t>(i))) {
      throw bad_input(here, ": token \"", printable(token), "\" a second time");
    }
    if (!token.empty()) keys.emplace_back(token, static_cast<std::int32_t>(i));
  }
  finish_vocabulary(where, vocabulary_);
  trie_ = std::make_unique<ByteTrie>(std::move(keys));
  unknown_score_ = lowest - kUnknownPenalty;
  byte_fallback_ = read_flag(json, "byte_fallback", false, where);
  if (json.get("unk_id") != nullptr) {
    const std::int64_t id = read_count(json, "unk_id", 0, where);
    if (id >= static_cast<std::int64_t>(list.size())) {
      throw bad_input(where, ".unk_id: ", id, " in a vocabulary of ", list.size());
    }
    unk_ = static_cast<std::int32_t>(id);
  }
}

std::unique_ptr<Model::Session> Unigram::session() const { return std::make_unique<UnigramSession>(*this); }

void UnigramSession::relax(std::size_t end, std::size_t size, std::int32_t id, double score) {
  Node& node = ends_[end];
  if (node.size != 0 && !(score > node.score)) return;
  node = {score, id, static_cast<std::uint32_t>(size)};
}

void UnigramSession::find_path(std::string_view piece) {
  ends_.assign(piece.size() + 1, {0, 0, 0});
  for (std::size_t at = 0; at < piece.size();) {
    const std::size_t size = char_at(piece, at).size;
    const double here = ends_[at].score;
    bool single = false;
    model_.trie_->prefixes_of(piece.substr(at), [&](std::size_t bytes, std::int32_t id) {
      relax(at + bytes, bytes, id, here + model_.scores_[static_cast<std::size_t>(id)]);
      single |= bytes == size;
    });
    if (!single) {
      if (!model_.unk_) throw bad_input(model_.where_, ": a character has no token and unk_id is missing");
      relax(at + size, size, *model_.unk_, here + model_.unknown_score_);
    }
    at += size;
  }
  path_.clear();
  for (std::size_t end = piece.size(); end > 0; end -= ends_[end].size) {
    const Node& node = ends_[end];
    const bool join = model_.unk_ && node.id == *model_.unk_ && !path_.empty() && path_.back().second == *model_.unk_;
    if (join) {
      path_.back().first += node.size;
    } else {
      path_.emplace_back(node.size, node.id);
    }
  }
}

void UnigramSession::emit(std::string_view token, std::int32_t id, std::vector<std::int32_t>& ids) const {
  // Joined unknown characters may spell a token, or be written in byte tokens.
  if (!model_.unk_ || id != *model_.unk_) return ids.push_back(id);
  if (const std::int32_t whole = model_.vocabulary().find(token); whole >= 0) return ids.push_back(whole);
  if (model_.byte_fallback_) {
    const std::size_t begin = ids.size();
    for (const char byte : token) {
      static constexpr char digits[] = "0123456789ABCDEF";
      const auto value = static_cast<unsigned char>(byte);
      const char name[] = {'<', '0', 'x', digits[value >> 4], digits[value & 15], '>'};
      const std::int32_t found = model_.vocabulary().find({name, sizeof name});
      if (found < 0) break;
      ids.push_back(found);
    }
    if (ids.size() - begin == token.size()) return;
    ids.resize(begin);
  }
  ids.push_back(id);
}

void UnigramSession::encode(std::string_view piece, std::vector<std::int32_t>& ids) {
  if (cache_.get(piece, ids)) return;
  const std::size_t begin = ids.size();
  find_path(piece);
  std::size_t at = 0;
  for (auto part = path_.rbegin(); part != path_.rend(); ++part) {
    emit(piece.substr(at, part->first), part->second, ids);
    at += part->first;
  }
  cache_.put(piece, std::span(ids).subspan(begin));
}

}  // namespace

std::unique_ptr<Model> read_unigram(const Json& json, const std::string& where) {
  return std::make_unique<Unigram>(json, where);
}

}  // namespace nibble::text
