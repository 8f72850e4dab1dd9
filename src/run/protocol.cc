#include "run/protocol.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::array<ProtocolInfo, 5> kProtocols{{
    {Protocol::gptq, "gptq", 2048, 0, RowJoin::blank_lines, "every token of a window but its first"},
    {Protocol::llama_cpp, "llama.cpp", 512, 0, RowJoin::as_file, "the second half of every window"},
    {Protocol::autogptq, "autogptq", 512, 0, RowJoin::marked_empty, "the second half of every window"},
    {Protocol::hf_stride, "hf-stride", 1024, 512, RowJoin::blank_lines, "tokens that no earlier window scored"},
    {Protocol::lm_eval, "lm-eval", 0, 0, RowJoin::documents, "every token once"},
}};

/// lm-eval's own default when a model names no context.
constexpr std::int64_t kUnknownContext = 2048;

using Ids = std::vector<std::int32_t>;

/// Windows [begin, begin + ctx) without overlap whose positions first .. ctx - 2 predict the next token.
void cut_windows(const Ids& ids, std::int64_t ctx, std::int64_t first, std::optional<std::int32_t> bos,
                 EvalPlan& plan) {
  const auto size = static_cast<std::int64_t>(ids.size());
  for (std::int64_t begin = 0; begin + ctx <= size; begin += ctx) {
    Window window;
    window.ids.assign(ids.begin() + begin, ids.begin() + begin + ctx);
    window.targets.assign(window.ids.begin() + first + 1, window.ids.end());
    window.first = first;
    window.weight = static_cast<double>(window.targets.size());
    if (bos) window.ids.front() = *bos;
    plan.windows.push_back(std::move(window));
  }
}

void cut_strided(const Ids& ids, std::int64_t ctx, std::int64_t stride, EvalPlan& plan) {
  const auto size = static_cast<std::int64_t>(ids.size());
  std::int64_t scored_end = 0;
  for (std::int64_t begin = 0; begin < size && scored_end < size; begin += stride) {
    const std::int64_t end = std::min(begin + ctx, size);
    const std::int64_t fresh = end - scored_end;
    Window window;
    window.ids.assign(ids.begin() + begin, ids.begin() + end);
    window.first = std::max<std::int64_t>(end - begin - fresh - 1, 0);
    window.targets.assign(window.ids.begin() + window.first + 1, window.ids.end());
    // The documentation weights a window's mean loss by its labels less one: right for the first window, whose first
    // label nothing predicts, one too few for the others.
    window.weight = static_cast<double>(fresh - 1);
    if (!window.targets.empty()) plan.windows.push_back(std::move(window));
    scored_end = end;
  }
}

/// Rolling windows with one token of context: lm-eval's get_rolling_token_windows and make_disjoint_window.
void cut_rolling(const Ids& ids, std::int64_t ctx, std::int32_t prefix, EvalPlan& plan) {
  Ids all{prefix};
  all.insert(all.end(), ids.begin(), ids.end());
  const auto size = static_cast<std::int64_t>(ids.size());
  for (std::int64_t done = 0; done < size;) {
    const std::int64_t fresh = std::min(ctx, size - done);
    const std::int64_t end = done + fresh;  // targets are ids [done, end) = all [done + 1, end + 1)
    const std::int64_t begin = done == 0 ? 0 : std::max<std::int64_t>(end - ctx, 0);
    Window window;
    window.ids.assign(all.begin() + begin, all.begin() + end);
    window.first = done - begin;
    window.targets.assign(all.begin() + done + 1, all.begin() + end + 1);
    window.weight = static_cast<double>(fresh);
    plan.windows.push_back(std::move(window));
    done = end;
  }
}

std::string once_or_none(const Tokenizer& tokenizer) {
  return tokenizer.adds_bos() ? "once, before the text" : "none (the tokenizer adds none)";
}

void choose_sizes(std::int64_t context_length, const EvalOptions& options, EvalPlan& plan) {
  const std::string_view name = plan.info.name;
  if (options.ctx < 0 || options.stride < 0 || options.max_windows < 0)
    throw bad_input("window, stride and number of windows must not be negative");
  plan.ctx = options.ctx;
  if (plan.ctx == 0) plan.ctx = plan.info.ctx;
  if (plan.ctx == 0) plan.ctx = context_length > 0 ? context_length : kUnknownContext;
  if (context_length > 0 && plan.ctx > context_length)
    throw bad_input("protocol ", name, ": a window of ", plan.ctx, " tokens is longer than the model's context of ",
                    context_length, "; choose a smaller one with --ctx");
  const std::int64_t least = plan.info.protocol == Protocol::lm_eval ? 1 : 2;
  if (plan.ctx < least) throw bad_input("protocol ", name, ": a window needs at least ", least, " tokens");
  if (options.stride != 0 && plan.info.stride == 0) throw bad_input("protocol ", name, " has no stride");
  if (options.max_windows != 0 && plan.info.protocol == Protocol::lm_eval)
    throw bad_input("protocol lm-eval scores whole documents: the number of windows cannot be limited");
  plan.stride = options.stride != 0 ? options.stride : std::min(plan.info.stride, plan.ctx);
  if (plan.info.stride == 0) plan.stride = plan.ctx;
  if (plan.stride > plan.ctx)
    throw bad_input("a stride of ", plan.stride, " tokens is longer than the window of ", plan.ctx);
}

std::optional<std::int32_t> choose_bos(const Tokenizer& tokenizer, EvalPlan& plan) {
  const auto bos = tokenizer.bos_id();
  switch (plan.info.protocol) {
    case Protocol::gptq:
    case Protocol::hf_stride: plan.bos = once_or_none(tokenizer); return std::nullopt;
    case Protocol::llama_cpp:
      plan.bos = tokenizer.adds_bos() ? "replaces the first token of every window" : once_or_none(tokenizer);
      return tokenizer.adds_bos() ? bos : std::nullopt;
    case Protocol::autogptq:
      if (!bos) throw bad_input("protocol autogptq needs a BOS token, and the model's tokenizer has none");
      plan.bos = "replaces the first token of every window";
      return bos;
    case Protocol::lm_eval:
      if (!bos && !tokenizer.eos_id())
        throw bad_input("protocol lm-eval needs a BOS or an EOS token, and the model's tokenizer has neither");
      plan.bos = bos ? "before every document" : "EOS before every document (there is no BOS)";
      return bos ? bos : tokenizer.eos_id();
  }
  return std::nullopt;
}

void cut_document(const Ids& ids, std::optional<std::int32_t> bos, EvalPlan& plan) {
  switch (plan.info.protocol) {
    case Protocol::gptq: cut_windows(ids, plan.ctx, 0, std::nullopt, plan); return;
    case Protocol::llama_cpp: cut_windows(ids, plan.ctx, plan.ctx / 2, bos, plan); return;
    // AutoGPTQ scores from position min(512, ctx / 2) on.
    case Protocol::autogptq: cut_windows(ids, plan.ctx, std::min<std::int64_t>(512, plan.ctx / 2), bos, plan); return;
    case Protocol::hf_stride: cut_strided(ids, plan.ctx, plan.stride, plan); return;
    case Protocol::lm_eval: cut_rolling(ids, plan.ctx, bos.value_or(0), plan); return;
  }
}

}  // namespace

std::span<const ProtocolInfo> protocols() { return kProtocols; }

const ProtocolInfo& protocol_info(Protocol protocol) { return kProtocols.at(static_cast<std::size_t>(protocol)); }

std::optional<Protocol> protocol_from_name(std::string_view name) {
  for (const ProtocolInfo& info : kProtocols) {
    if (info.name == name) return info.protocol;
  }
  return std::nullopt;
}

EvalPlan plan_evaluation(std::span<const EvalDocument> documents, const Tokenizer& tokenizer,
                         std::int64_t context_length, const EvalOptions& options) {
  EvalPlan plan;
  plan.info = protocol_info(options.protocol);
  choose_sizes(context_length, options, plan);
  const auto bos = choose_bos(tokenizer, plan);
  const EncodeOptions encode{.add_special = options.protocol != Protocol::lm_eval,
                             .parse_special = options.protocol != Protocol::llama_cpp};
  for (const EvalDocument& document : documents) {
    const Ids ids = tokenizer.encode(document.text, encode);
    plan.tokens += static_cast<std::int64_t>(ids.size());
    plan.words += document.words;
    plan.bytes += document.bytes;
    cut_document(ids, bos, plan);
  }
  const auto limit = static_cast<std::size_t>(std::max<std::int64_t>(options.max_windows, 0));
  if (limit != 0 && plan.windows.size() > limit) plan.windows.resize(limit);
  if (plan.windows.empty())
    throw bad_input("protocol ", plan.info.name, ": the text has ", plan.tokens, " tokens, fewer than one window of ",
                    plan.ctx, "; choose a smaller one with --ctx");
  return plan;
}

}  // namespace nibble
