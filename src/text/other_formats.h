// Tokenizers of folders without a tokenizer.json, described as the same pipeline.
#pragma once
#include <filesystem>
#include <memory>

#include "text/pipeline_tokenizer.h"

namespace nibble::text {

/// A sentencepiece tokenizer.model (BPE or Unigram) with the conventions of Transformers 5's LlamaTokenizer: control
/// tokens in the text are parsed, U+2581 is put in front of the text (of every stretch between special tokens when
/// `legacy`), BOS and EOS are added as the config says. Throws Error(bad_input).
std::shared_ptr<const Tokenizer> read_sentencepiece(const std::filesystem::path& file, const TokenizerConfig& config);

/// vocab.json + merges.txt: byte-level BPE as GPT2Tokenizer has it, with Qwen2's normalizer and splitting when the
/// config names its class. Throws Error(bad_input).
std::shared_ptr<const Tokenizer> read_vocab_and_merges(const std::filesystem::path& vocab,
                                                       const std::filesystem::path& merges,
                                                       const TokenizerConfig& config);

/// BOS and EOS around the text as add_bos_token and add_eos_token say; what Transformers builds when there is no
/// tokenizer.json.
PostProcessor config_post_processor(const Pipeline& pipeline, const TokenizerConfig& config);

}  // namespace nibble::text
