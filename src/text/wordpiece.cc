// WordPiece (BERT): the longest token that the word begins with, then the longest continuation, and so on; and
// WordLevel, where the word itself is the token.
#include <algorithm>

#include "base/error.h"
#include "text/model.h"
#include "text/unicode.h"

namespace nibble::text {
namespace {

class WordPiece : public Model {
 public:
  WordPiece(const Json& json, const std::string& where) : where_(where) {
    read_vocabulary(json, where, vocabulary_);
    unk_ = read_text(json, "unk_token", "[UNK]", where);
    prefix_ = read_text(json, "continuing_subword_prefix", "##", where);
    max_characters_ = read_count(json, "max_input_chars_per_word", 100, where);
    for (std::size_t i = 0; i < vocabulary_.size(); ++i) longest_ = std::max(longest_, vocabulary_.token_at(i).size());
  }
  std::unique_ptr<Session> session() const override;

 private:
  friend class WordPieceSession;
  std::string where_, unk_, prefix_;
  std::int64_t max_characters_ = 100;
  std::size_t longest_ = 0;  ///< bytes of the longest token: no longer match need be tried
};

class WordPieceSession : public Model::Session {
 public:
  explicit WordPieceSession(const WordPiece& model) : model_(model) {}

  void encode(std::string_view piece, std::vector<std::int32_t>& ids) override {
    const std::size_t begin = ids.size();
    if (fits(piece) && cut(piece, ids)) return;
    ids.resize(begin);
    const std::int32_t unk = model_.vocabulary().find(model_.unk_);
    if (unk < 0) {
      throw bad_input(model_.where_, ": unk_token \"", printable(model_.unk_), "\" is not in the vocabulary");
    }
    ids.push_back(unk);
  }

 private:
  bool fits(std::string_view piece) const {
    const auto continuation = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
    const auto extra = std::count_if(piece.begin(), piece.end(), continuation);
    return static_cast<std::int64_t>(piece.size()) - extra <= model_.max_characters_;
  }

  bool cut(std::string_view piece, std::vector<std::int32_t>& ids) {
    for (std::size_t at = 0; at < piece.size();) {
      std::size_t size = std::min(piece.size() - at, model_.longest_);
      while (at + size < piece.size() && (static_cast<unsigned char>(piece[at + size]) & 0xc0) == 0x80) --size;
      std::int32_t id = -1;
      while (size > 0) {
        written_.assign(at > 0 ? model_.prefix_ : "").append(piece.substr(at, size));
        id = model_.vocabulary().find(written_);
        if (id >= 0) break;
        size -= char_before(piece.substr(at), size).size;
      }
      if (id < 0) return false;
      ids.push_back(id);
      at += size;
    }
    return true;
  }

  const WordPiece& model_;
  std::string written_;
};

std::unique_ptr<Model::Session> WordPiece::session() const { return std::make_unique<WordPieceSession>(*this); }

class WordLevel : public Model {
 public:
  WordLevel(const Json& json, const std::string& where) : where_(where) {
    read_vocabulary(json, where, vocabulary_);
    unk_ = read_text(json, "unk_token", "<unk>", where);
  }
  std::unique_ptr<Session> session() const override;

 private:
  friend class WordLevelSession;
  std::string where_, unk_;
};

class WordLevelSession : public Model::Session {
 public:
  explicit WordLevelSession(const WordLevel& model) : model_(model) {}
  void encode(std::string_view piece, std::vector<std::int32_t>& ids) override {
    std::int32_t id = model_.vocabulary().find(piece);
    if (id < 0) id = model_.vocabulary().find(model_.unk_);
    if (id < 0) {
      throw bad_input(model_.where_, ": word \"", printable(piece, 60), "\" and unk_token \"", printable(model_.unk_),
                      "\" are not in the vocabulary");
    }
    ids.push_back(id);
  }

 private:
  const WordLevel& model_;
};

std::unique_ptr<Model::Session> WordLevel::session() const { return std::make_unique<WordLevelSession>(*this); }

}  // namespace

std::unique_ptr<Model> read_wordpiece(const Json& json, const std::string& where) {
  return std::make_unique<WordPiece>(json, where);
}

std::unique_ptr<Model> read_wordlevel(const Json& json, const std::string& where) {
  return std::make_unique<WordLevel>(json, where);
}

}  // namespace nibble::text
