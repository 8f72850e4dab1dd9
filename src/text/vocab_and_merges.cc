#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "text/other_formats.h"

namespace nibble::text {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 29;
constexpr const char* kQwen2Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json object(std::initializer_list<Json::Member> members) { return Json::Object(members); }

/// The lines of merges.txt as a list of strings; a first line "#version: ..." is left out.
Json read_merges(const std::filesystem::path& file) {
  const std::string text = read_file(file, kMaxBytes);
  if (const std::size_t bad = utf8_first_invalid(text); bad != text.size()) {
    throw bad_input(file.string(), ": not valid UTF-8 at byte ", bad);
  }
  Json::Array merges;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !line.starts_with("#version")) merges.emplace_back(line);
    at = end + 1;
  }
  return merges;
}

}  // namespace

PostProcessor config_post_processor(const Pipeline& pipeline, const TokenizerConfig& config) {
  std::vector<std::int32_t> before, after;
  if (config.add_bos.value_or(false) && pipeline.bos) before.push_back(*pipeline.bos);
  if (config.add_eos.value_or(false) && pipeline.eos) after.push_back(*pipeline.eos);
  return {before, after};
}

std::shared_ptr<const Tokenizer> read_vocab_and_merges(const std::filesystem::path& vocab,
                                                       const std::filesystem::path& merges,
                                                       const TokenizerConfig& given) {
  TokenizerConfig config = given;
  const bool qwen2 = config.tokenizer_class.starts_with("Qwen2Tokenizer");
  const auto defaulted = [](std::optional<AddedToken>& slot) {
    if (slot) return;
    slot.emplace();
    slot->content = "<|endoftext|>";
    slot->special = true;
    slot->normalized = false;
  };
  if (!qwen2) defaulted(config.bos);
  defaulted(config.eos);
  if (config.bos) config.specials.push_back(*config.bos);
  config.specials.push_back(*config.eos);

  Pipeline pipeline;
  pipeline.where = vocab.string();
  const Json model =
      object({{"type", "BPE"}, {"vocab", Json::read(vocab, kMaxBytes)}, {"merges", read_merges(merges)}});
  pipeline.model = read_bpe(model, pipeline.where);
  const bool prefix = config.add_prefix_space.value_or(false);
  Json pre = object({{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"use_regex", !qwen2}});
  if (qwen2) {
    const Json split =
        object({{"type", "Split"}, {"pattern", object({{"Regex", kQwen2Split}})}, {"behavior", "Isolated"}});
    pre = object({{"type", "Sequence"}, {"pretokenizers", Json::Array{split, pre}}});
    const Json nfc = object({{"type", "NFC"}});
    pipeline.normalizer = read_normalizer(&nfc, pipeline.where);
  }
  pipeline.pre_tokenizer = PreTokenizer(&pre, pipeline.where);
  const Json decoder = object({{"type", "ByteLevel"}});
  pipeline.decoder = Decoder(&decoder, pipeline.where);
  apply_config(pipeline, config);
  pipeline.post_processor = config_post_processor(pipeline, config);
  return std::make_shared<PipelineTokenizer>(std::move(pipeline));
}

}  // namespace nibble::text
