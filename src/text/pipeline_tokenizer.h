// The tokenizer that every file format ends in: the pipeline of the Hugging Face tokenizers library. tokenizer.json
// describes one; tokenizer.model and vocab.json + merges.txt are described as one.
#pragma once
#include <memory>
#include <string>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"

namespace nibble::text {

struct Pipeline {
  std::string where;                             ///< the file, for messages
  std::unique_ptr<const Normalizer> normalizer;  ///< may be null
  PreTokenizer pre_tokenizer;
  std::unique_ptr<const Model> model;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  std::optional<std::int32_t> bos, eos;
};

class PipelineTokenizer : public Tokenizer {
 public:
  explicit PipelineTokenizer(Pipeline pipeline) : p_(std::move(pipeline)) {}

  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override;
  std::int64_t vocab_size() const override;
  std::optional<std::int32_t> token_to_id(std::string_view token) const override;
  std::optional<std::string> id_to_token(std::int32_t id) const override;
  bool is_special(std::int32_t id) const override;
  std::optional<std::int32_t> bos_id() const override { return p_.bos; }
  std::optional<std::int32_t> eos_id() const override { return p_.eos; }
  bool adds_bos() const override;

  /// The token of an id as the decoder takes it: nullopt when `skip_special` drops it; an Error for an unknown id.
  std::optional<std::string_view> piece(std::int32_t id, bool skip_special) const;
  const Decoder& decoder() const { return p_.decoder; }

 private:
  Pipeline p_;
};

/// From the text of a tokenizer.json read as JSON; `where` (the file) begins messages.
std::shared_ptr<const Tokenizer> read_tokenizer_json(const Json& json, const std::string& where,
                                                     const TokenizerConfig& config);

/// Adds the tokens that the config names and the file does not, finishes the search for added tokens and finds the ids
/// of BOS and EOS: the last step of making a pipeline.
void apply_config(Pipeline& pipeline, const TokenizerConfig& config);

}  // namespace nibble::text
