#include "text/pipeline_tokenizer.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace nibble::text {
namespace {

/// Texts are handed to libraries that count in 32 bits.
constexpr std::size_t kMaxText = std::size_t{1} << 30;

/// One encode() call: text flows from the added-token search through normalizer and pre-tokenizer into the model.
class Encoding : private PieceSink {
 public:
  Encoding(const Pipeline& pipeline, bool parse_special)
      : p_(pipeline),
        parse_special_(parse_special),
        session_(make_session(pipeline)),
        pre_(pipeline.pre_tokenizer, *this) {}

  std::vector<std::int32_t> run(std::string_view text) {
    p_.added.split(text, false, parse_special_, [&](const Stretch& stretch) {
      if (stretch.id >= 0) {
        ids_.push_back(stretch.id);
      } else {
        normalize(stretch);
      }
    });
    return std::move(ids_);
  }

 private:
  static std::unique_ptr<Model::Session> make_session(const Pipeline& pipeline) {
    auto session = pipeline.model->session();
    return pipeline.pre_tokenizer.byte_level() ? byte_level_session(std::move(session)) : std::move(session);
  }

  void normalize(const Stretch& stretch) {
    if (p_.normalizer == nullptr) return find_normalized(stretch.text, stretch.begin == 0);
    Normalized normalized{std::string(stretch.text), true};
    p_.normalizer->apply(normalized);
    find_normalized(normalized.text, normalized.at_start && stretch.begin == 0);
  }

  void find_normalized(std::string_view text, bool at_start) {
    p_.added.split(text, true, parse_special_, [&](const Stretch& stretch) {
      if (stretch.id >= 0) {
        ids_.push_back(stretch.id);
      } else {
        pre_.apply({stretch.text, at_start && stretch.begin == 0});
      }
    });
  }

  void take(Piece piece) override {
    if (!piece.text.empty()) session_->encode(piece.text, ids_);
  }

  const Pipeline& p_;
  bool parse_special_;
  std::vector<std::int32_t> ids_;
  std::unique_ptr<Model::Session> session_;
  PreTokenizer::Run pre_;
};

std::optional<std::int32_t> find_id(const Pipeline& pipeline, const std::optional<AddedToken>& token,
                                    std::optional<std::int64_t> otherwise) {
  if (token) {
    std::int32_t id = pipeline.added.find(token->content);
    if (id < 0) id = pipeline.model->vocabulary().find(token->content);
    if (id >= 0) return id;
  }
  const std::int64_t largest = std::max(pipeline.model->vocabulary().max_id(), pipeline.added.max_id());
  if (!otherwise || *otherwise < 0 || *otherwise > largest) return std::nullopt;
  return static_cast<std::int32_t>(*otherwise);
}

}  // namespace

std::vector<std::int32_t> PipelineTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (const std::size_t bad = utf8_first_invalid(text); bad != text.size()) {
    throw bad_input("text is not valid UTF-8 at byte ", bad);
  }
  if (text.size() > kMaxText) throw bad_input("text of ", text.size(), " bytes; at most ", kMaxText, " at once");
  std::vector<std::int32_t> ids = Encoding(p_, options.parse_special).run(text);
  return options.add_special ? p_.post_processor.apply(std::move(ids)) : ids;
}

std::optional<std::string_view> PipelineTokenizer::piece(std::int32_t id, bool skip_special) const {
  const AddedToken* added = p_.added.token(id);
  const std::optional<std::string_view> token =
      added != nullptr ? std::optional<std::string_view>(added->content) : p_.model->vocabulary().token(id);
  if (!token) throw bad_input("id ", id, " is not in the vocabulary of ", vocab_size(), " tokens");
  if (skip_special && p_.added.is_special(*token)) return std::nullopt;
  return token;
}

std::string PipelineTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  Decoder::Run run(p_.decoder);
  for (const std::int32_t id : ids) {
    if (const auto token = piece(id, skip_special)) run.push(*token);
  }
  run.finish();
  return run.take();
}

std::int64_t PipelineTokenizer::vocab_size() const {
  return std::int64_t{1} + std::max(p_.model->vocabulary().max_id(), p_.added.max_id());
}

std::optional<std::int32_t> PipelineTokenizer::token_to_id(std::string_view token) const {
  std::int32_t id = p_.added.find(token);
  if (id < 0) id = p_.model->vocabulary().find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::optional<std::string> PipelineTokenizer::id_to_token(std::int32_t id) const {
  if (const AddedToken* added = p_.added.token(id)) return added->content;
  const auto token = p_.model->vocabulary().token(id);
  return token ? std::optional<std::string>(*token) : std::nullopt;
}

bool PipelineTokenizer::is_special(std::int32_t id) const {
  const AddedToken* added = p_.added.token(id);
  return added != nullptr && p_.added.is_special(added->content);
}

bool PipelineTokenizer::adds_bos() const { return p_.bos && p_.post_processor.first() == p_.bos; }

void apply_config(Pipeline& pipeline, const TokenizerConfig& config) {
  const Vocabulary& vocabulary = pipeline.model->vocabulary();
  for (const auto& [id, token] : config.added) {
    if (pipeline.added.find(token.content) < 0) pipeline.added.add(token, vocabulary);
  }
  for (const AddedToken& token : config.specials) {
    if (pipeline.added.find(token.content) < 0) pipeline.added.add(token, vocabulary);
  }
  pipeline.added.finish(pipeline.normalizer.get());
  pipeline.bos = find_id(pipeline, config.bos, config.model_bos_id);
  pipeline.eos = find_id(pipeline, config.eos, config.model_eos_id);
}

std::shared_ptr<const Tokenizer> read_tokenizer_json(const Json& json, const std::string& where,
                                                     const TokenizerConfig& config) {
  json.object(where);
  const auto section = [&](const char* name) { return where + ": " + name; };
  Pipeline pipeline;
  pipeline.where = where;
  const Json* model = json.get("model");
  if (model == nullptr) throw bad_input(where, ": no model section; this is no tokenizer.json");
  pipeline.model = read_model(*model, section("model"));
  pipeline.normalizer = read_normalizer(json.get("normalizer"), section("normalizer"));
  pipeline.pre_tokenizer = PreTokenizer(json.get("pre_tokenizer"), section("pre_tokenizer"));
  pipeline.post_processor = PostProcessor(json.get("post_processor"), section("post_processor"));
  pipeline.decoder = Decoder(json.get("decoder"), section("decoder"));
  for (AddedToken& token : read_added_tokens(json.get("added_tokens"), section("added_tokens"))) {
    pipeline.added.add(std::move(token), pipeline.model->vocabulary());
  }
  apply_config(pipeline, config);
  return std::make_shared<PipelineTokenizer>(std::move(pipeline));
}

}  // namespace nibble::text
