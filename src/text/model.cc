#include "text/model.h"

#include <limits>
#include <utility>

#include "base/error.h"
#include "text/unicode.h"
#include "text/word_cache.h"

namespace nibble::text {
namespace {

/// Old files have no "type": the fields tell, tried in the order of the tokenizers library.
std::string guess_type(const Json& json) {
  if (json.find("merges") != nullptr) return "BPE";
  if (const Json* vocab = json.find("vocab"); vocab != nullptr && vocab->is_array()) return "Unigram";
  return json.find("continuing_subword_prefix") != nullptr ? "WordPiece" : "WordLevel";
}

class ByteLevelSession : public Model::Session {
 public:
  explicit ByteLevelSession(std::unique_ptr<Model::Session> inner) : inner_(std::move(inner)) {}

  void encode(std::string_view piece, std::vector<std::int32_t>& ids) override {
    if (cache_.get(piece, ids)) return;
    const std::size_t begin = ids.size();
    written_.clear();
    append_byte_level(written_, piece);
    inner_->encode(written_, ids);
    cache_.put(piece, std::span(ids).subspan(begin));
  }

 private:
  std::unique_ptr<Model::Session> inner_;
  WordCache cache_;
  std::string written_;
};

}  // namespace

std::unique_ptr<Model> read_model(const Json& json, const std::string& where) {
  json.object(where);
  const std::string type = read_text(json, "type", guess_type(json), where);
  if (type == "BPE") return read_bpe(json, where);
  if (type == "Unigram") return read_unigram(json, where);
  if (type == "WordPiece") return read_wordpiece(json, where);
  if (type == "WordLevel") return read_wordlevel(json, where);
  throw bad_input(where, ": unknown model type \"", printable(type), "\" (known: BPE, Unigram, WordPiece, WordLevel)");
}

std::unique_ptr<Model::Session> byte_level_session(std::unique_ptr<Model::Session> inner) {
  return std::make_unique<ByteLevelSession>(std::move(inner));
}

bool read_flag(const Json& json, const char* key, bool otherwise, const std::string& where) {
  const Json* found = json.get(key);
  return found == nullptr ? otherwise : found->boolean(where + "." + key);
}

std::string read_text(const Json& json, const char* key, const std::string& otherwise, const std::string& where) {
  const Json* found = json.get(key);
  return found == nullptr ? otherwise : found->string(where + "." + key);
}

std::int64_t read_count(const Json& json, const char* key, std::int64_t otherwise, const std::string& where) {
  const Json* found = json.get(key);
  if (found == nullptr) return otherwise;
  const std::int64_t value = found->integer(where + "." + key);
  if (value < 0) throw bad_input(where, ".", key, ": negative (", value, ")");
  return value;
}

void read_vocabulary(const Json& json, const std::string& where, Vocabulary& vocabulary) {
  const Json* vocab = json.get("vocab");
  if (vocab == nullptr) throw bad_input(where, ": no vocab");
  const Json::Object& members = vocab->object(where + ".vocab");
  vocabulary.reserve(members.size());
  for (const auto& [token, value] : members) {
    const std::int64_t id = value.is_integer() ? value.integer("") : -1;
    if (id < 0 || id >= std::numeric_limits<std::int32_t>::max()) {
      throw bad_input(where, ".vocab: id of \"", printable(token), "\" is not a number from 0 to 2147483646");
    }
    vocabulary.add(token, static_cast<std::int32_t>(id));
  }
  finish_vocabulary(where, vocabulary);
}

void finish_vocabulary(const std::string& where, Vocabulary& vocabulary) {
  if (const auto twice = vocabulary.index_ids()) {
    throw bad_input(where, ".vocab: id ", vocabulary.id_at(twice->first), " is given to both \"",
                    printable(vocabulary.token_at(twice->first)), "\" and \"",
                    printable(vocabulary.token_at(twice->second)), "\"");
  }
}

}  // namespace nibble::text
