// The "model" section of tokenizer.json: how one piece of pre-tokenized text becomes ids.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/vocabulary.h"

namespace nibble::text {

class Model {
 public:
  /// Working memory of one encode() call (caches, heaps), used by one thread.
  class Session {
   public:
    virtual ~Session() = default;
    /// Appends the ids of a piece (valid UTF-8, not empty). Throws Error(bad_input) when the model has no token for it.
    virtual void encode(std::string_view piece, std::vector<std::int32_t>& ids) = 0;
  };

  virtual ~Model() = default;
  virtual std::unique_ptr<Session> session() const = 0;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  Vocabulary vocabulary_;
};

/// From the object `model` of a tokenizer.json; `where` begins messages. Throws Error(bad_input) for an unknown type
/// and for any field that does not fit it.
std::unique_ptr<Model> read_model(const Json& json, const std::string& where);

/// A session that takes raw bytes, writes them in the GPT-2 byte alphabet and hands them to `inner`, with a cache.
std::unique_ptr<Model::Session> byte_level_session(std::unique_ptr<Model::Session> inner);

// The parsers behind read_model, one per type.
std::unique_ptr<Model> read_bpe(const Json& json, const std::string& where);
std::unique_ptr<Model> read_unigram(const Json& json, const std::string& where);
std::unique_ptr<Model> read_wordpiece(const Json& json, const std::string& where);
std::unique_ptr<Model> read_wordlevel(const Json& json, const std::string& where);

// Helpers of those parsers: optional fields with a default; the object {token: id} with every id checked.
bool read_flag(const Json& json, const char* key, bool otherwise, const std::string& where);
std::string read_text(const Json& json, const char* key, const std::string& otherwise, const std::string& where);
std::int64_t read_count(const Json& json, const char* key, std::int64_t otherwise, const std::string& where);
void read_vocabulary(const Json& json, const std::string& where, Vocabulary& vocabulary);
/// index_ids(), an Error when two tokens share an id.
void finish_vocabulary(const std::string& where, Vocabulary& vocabulary);

}  // namespace nibble::text
