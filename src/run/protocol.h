// Perplexity protocols: which tokens a model reads in one go and which of them count. The same model and text give
// different perplexities under different protocols, so that a figure without its protocol means nothing.
//
//   gptq       GPTQ, AWQ and most papers: tokenized once, windows of 2048 without overlap, every token but a window's
//              first scored, the tail dropped, BOS only where the tokenizer puts it
//   llama.cpp  llama-perplexity: windows of 512, first token replaced by BOS (if the tokenizer adds one), only the
//              second half scored; special tokens are not looked for in the text
//   autogptq   AutoGPTQ's Perplexity, Quanto's bench: like llama.cpp, but BOS always; rows joined in another way
//   hf-stride  the Transformers documentation (and HQQ): windows of 1024 that move by 512, new tokens scored; a later
//              window's mean counts one token less than it has, as in the documentation's code
//   lm-eval    loglikelihood_rolling of the task "wikitext": windows of the model's whole context after one BOS (or
//              EOS), every token scored once; perplexity per word, per byte, bits per byte
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "run/eval_text.h"
#include "text/tokenizer.h"

namespace nibble {

enum class Protocol : std::uint8_t { gptq, llama_cpp, autogptq, hf_stride, lm_eval };

struct ProtocolInfo {
  Protocol protocol = Protocol::gptq;
  std::string_view name;
  std::int64_t ctx = 0;     ///< default window in tokens; 0: the model's context
  std::int64_t stride = 0;  ///< default step between windows; 0: they do not overlap
  RowJoin join = RowJoin::as_file;
  std::string_view scored;  ///< which tokens count, in words
};

/// All protocols, in the order of Protocol.
std::span<const ProtocolInfo> protocols();
const ProtocolInfo& protocol_info(Protocol protocol);
std::optional<Protocol> protocol_from_name(std::string_view name);

/// One pass of the model.
struct Window {
  std::vector<std::int32_t> ids;      ///< what the model reads
  std::vector<std::int32_t> targets;  ///< targets[i] is the token that position first + i has to predict
  std::int64_t first = 0;
  double weight = 0;  ///< of the window's mean in the mean over windows; mostly targets.size()
};

struct EvalOptions {
  Protocol protocol = Protocol::gptq;
  std::int64_t ctx = 0;          ///< 0: the protocol's
  std::int64_t stride = 0;       ///< 0: the protocol's; only where windows overlap
  std::int64_t max_windows = 0;  ///< 0: all; not for lm-eval, which scores whole documents
};

/// Everything that is fixed before the model runs.
struct EvalPlan {
  ProtocolInfo info;
  std::int64_t ctx = 0;
  std::int64_t stride = 0;
  std::int64_t tokens = 0;  ///< of the whole text, BOS included where the tokenizer puts it
  std::int64_t words = 0;   ///< of all documents
  std::int64_t bytes = 0;
  std::string bos;  ///< the BOS policy in words
  std::vector<Window> windows;
};

/// Cuts the documents into windows. `context_length` is the model's (0: unknown). Throws Error(bad_input) when the
/// window is longer than the context, the text shorter than a window, or the protocol needs a BOS token that the
/// tokenizer lacks.
EvalPlan plan_evaluation(std::span<const EvalDocument> documents, const Tokenizer& tokenizer,
                         std::int64_t context_length, const EvalOptions& options);

}  // namespace nibble
