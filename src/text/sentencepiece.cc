#include <sentencepiece_processor.h>

#include <optional>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "text/other_formats.h"

namespace nibble::text {
namespace {

constexpr std::int64_t kMaxModelBytes = std::int64_t{1} << 29;

/// Appended to a serialized ModelProto: normalizer_spec { add_dummy_prefix: false }. Protobuf merges a message field
/// that comes again, so this overrides the model's own value; the pipeline's Metaspace step puts the prefix instead.
constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);

/// Walks the fields of a protobuf message: visit(number, value of a varint, bytes of a length-delimited field). False
/// when the bytes are no message.
template <class Visit>
bool for_each_field(std::string_view message, Visit visit) {
  std::size_t at = 0;
  const auto varint = [&](std::uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && at < message.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(message[at++]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  };
  while (at < message.size()) {
    std::uint64_t tag = 0, value = 0;
    if (!varint(tag)) return false;
    const auto wire = tag & 7;
    std::string_view bytes;
    if (wire == 0) {
      if (!varint(value)) return false;
    } else {
      std::uint64_t size = wire == 5 ? 4 : 8;
      if (wire == 2 && !varint(size)) return false;
      if ((wire != 1 && wire != 2 && wire != 5) || size > message.size() - at) return false;
      bytes = message.substr(at, static_cast<std::size_t>(size));
      at += bytes.size();
    }
    visit(tag >> 3, value, bytes);
  }
  return true;
}

/// Ids of the pieces of type USER_DEFINED (4), which the library does not tell: ModelProto.pieces is field 1,
/// SentencePiece.type field 3.
std::unordered_set<int> user_defined_pieces(std::string_view proto) {
  std::unordered_set<int> found;
  int id = 0;
  for_each_field(proto, [&](std::uint64_t number, std::uint64_t, std::string_view piece) {
    if (number != 1) return;
    for_each_field(piece, [&](std::uint64_t field, std::uint64_t type, std::string_view) {
      if (field == 3 && type == 4) found.insert(id);
    });
    ++id;
  });
  return found;
}

class SentencePieceModel : public Model {
 public:
  SentencePieceModel(const std::string& proto, const std::string& where) : where_(where) {
    const auto status = processor_.LoadFromSerializedProto(proto + std::string(kNoDummyPrefix));
    if (!status.ok()) throw bad_input(where, ": not a sentencepiece model: ", printable(status.error_message()));
    const int size = processor_.GetPieceSize();
    vocabulary_.reserve(static_cast<std::size_t>(size));
    for (int id = 0; id < size; ++id) {
      const std::string& piece = processor_.IdToPiece(id);
      if (!utf8_valid(piece)) throw bad_input(where, ": piece ", id, " is not valid UTF-8");
      if (!vocabulary_.add(piece, id)) throw bad_input(where, ": piece \"", printable(piece), "\" a second time");
    }
    finish_vocabulary(where, vocabulary_);
    user_defined_ = user_defined_pieces(proto);
  }

  std::unique_ptr<Session> session() const override { return std::make_unique<Running>(*this); }

  /// Control, unknown and user-defined pieces: what must be found in the text before sentencepiece sees it.
  std::vector<AddedToken> symbols() const {
    std::vector<AddedToken> found;
    for (std::size_t i = 0; i < vocabulary_.size(); ++i) {
      const int id = vocabulary_.id_at(i);
      const bool special = processor_.IsControl(id) || processor_.IsUnknown(id);
      if (!special && user_defined_.count(id) == 0) continue;
      AddedToken token;
      token.content = vocabulary_.token_at(i);
      token.normalized = false;
      token.special = special;
      found.push_back(std::move(token));
    }
    return found;
  }

  std::optional<AddedToken> named(int id) const {
    if (id < 0 || id >= processor_.GetPieceSize()) return std::nullopt;
    AddedToken token;
    token.content = processor_.IdToPiece(id);
    token.special = true;
    token.normalized = false;
    return token;
  }
  int bos() const { return processor_.bos_id(); }
  int eos() const { return processor_.eos_id(); }

 private:
  class Running : public Session {
   public:
    explicit Running(const SentencePieceModel& model) : model_(model) {}
    void encode(std::string_view piece, std::vector<std::int32_t>& ids) override {
      std::vector<int> found;
      const auto status = model_.processor_.Encode(piece, &found);
      if (!status.ok()) throw bad_input(model_.where_, ": sentencepiece: ", printable(status.error_message()));
      ids.insert(ids.end(), found.begin(), found.end());
    }

   private:
    const SentencePieceModel& model_;
  };

  std::string where_;
  sentencepiece::SentencePieceProcessor processor_;
  std::unordered_set<int> user_defined_;
};

constexpr const char* kDecoder = R"({"type": "Sequence", "decoders": [
  {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]})";
constexpr const char* kDecoderStrip = R"({"type": "Sequence", "decoders": [
  {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

/// Llama 3 and Qwen 1 ship tiktoken files under the same name: lines of base64 and a rank.
bool looks_like_tiktoken(std::string_view head) {
  const std::size_t line = head.find('\n');
  if (line == std::string_view::npos || line < 3 || line > 100) return false;
  return head.substr(0, line).find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \r") == std::string_view::npos;
}

}  // namespace

std::shared_ptr<const Tokenizer> read_sentencepiece(const std::filesystem::path& file, const TokenizerConfig& given) {
  const std::string where = file.string();
  const std::string proto = read_file(file, kMaxModelBytes);
  if (looks_like_tiktoken(std::string_view(proto).substr(0, 200))) {
    throw bad_input(where, ": a tiktoken file, not a sentencepiece model; a tokenizer.json is needed");
  }
  auto model = std::make_unique<SentencePieceModel>(proto, where);
  TokenizerConfig config = given;
  if (!config.bos) config.bos = model->named(model->bos());
  if (!config.eos) config.eos = model->named(model->eos());
  Pipeline pipeline;
  pipeline.where = where;
  const bool prefix = config.add_prefix_space.value_or(true);
  const bool legacy = config.legacy.value_or(false);
  Json metaspace;
  metaspace.set("type", "Metaspace");
  metaspace.set("prepend_scheme", !prefix ? "never" : legacy ? "always" : "first");
  metaspace.set("split", false);
  pipeline.pre_tokenizer = PreTokenizer(&metaspace, where);
  const Json decoder = Json::parse(prefix ? kDecoderStrip : kDecoder, "decoder");
  pipeline.decoder = Decoder(&decoder, where);
  for (AddedToken& token : model->symbols()) pipeline.added.add(std::move(token), model->vocabulary());
  pipeline.model = std::move(model);
  apply_config(pipeline, config);
  pipeline.post_processor = config_post_processor(pipeline, config);
  return std::make_shared<PipelineTokenizer>(std::move(pipeline));
}

}  // namespace nibble::text
