// What merging costs: the merged model against base and adapter at run time.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "run/adapter/merge.h"
#include "run/generate.h"
#include "run/token_score.h"

namespace nibble {
namespace {

/// Encoder-decoders, which perplexity does not cover: the decoder reads the ids that the encoder has read.
PerplexityResult measure_encoder_decoders(const EvalModel& merged, const EvalModel& adapted,
                                          std::span<const std::vector<std::int32_t>> sequences) {
  const std::int64_t vocab = merged.model.info().vocab_size;
  std::vector<TokenScore> scores;
  for (const std::vector<std::int32_t>& ids : sequences) {
    if (ids.size() < 2) continue;
    const std::span<const std::int32_t> targets(ids.data() + 1, ids.size() - 1);
    const auto logits_of = [&](const EvalModel& eval) {
      std::vector<float> out;
      for_each_logits(eval.model, ids, std::span(ids).first(targets.size()), eval.exec,
                      [&](std::int64_t, std::int64_t rows, const float* values) {
                        out.insert(out.end(), values, values + rows * vocab);
                      });
      return out;
    };
    const std::vector<float> q = logits_of(merged), p = logits_of(adapted);
    const std::size_t old = scores.size();
    scores.resize(old + targets.size());
    score_rows(targets, q.data(), p.data(), vocab, merged.exec.pool, scores.data() + old);
  }
  PerplexityResult result;
  result.scored = static_cast<std::int64_t>(scores.size());
  if (scores.empty()) throw bad_input("no sequence of two tokens or more to compare the models on");
  Divergence& d = result.divergence.emplace();
  double nll = 0, base_nll = 0, squares = 0;
  for (const TokenScore& score : scores) {
    nll += score.nll;
    base_nll += score.base_nll;
    d.kl.value += score.kl;
    squares += score.kl * score.kl;
    d.kl_max = std::max(d.kl_max, score.kl);
    d.same_top.value += score.same_top ? 1 : 0;
  }
  const auto count = static_cast<double>(scores.size());
  d.kl.value /= count;
  d.same_top.value /= count;
  if (count > 1) {
    d.kl.error = std::sqrt(std::max(0.0, squares / count - d.kl.value * d.kl.value) / (count - 1));
    d.same_top.error = std::sqrt(d.same_top.value * (1 - d.same_top.value) / (count - 1));
  }
  d.base_ppl = std::exp(base_nll / count);
  result.ppl.value = std::exp(nll / count);
  return result;
}

}  // namespace

std::vector<std::vector<std::int32_t>> own_text(Model& model, const Checkpoint& checkpoint, std::int64_t count,
                                                std::int64_t length, Exec& exec) {
  const std::int64_t vocab = model.info().vocab_size;
  const std::int64_t context = model.info().context_length;
  if (context > 0) length = std::min(length, context);
  const Json* field = checkpoint.config().get("bos_token_id");
  const std::int64_t bos = field != nullptr && field->is_integer() ? field->integer("bos_token_id") : -1;
  Rng rng(1);
  std::vector<std::vector<std::int32_t>> out;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto drawn = static_cast<std::int64_t>(rng.next() % static_cast<std::uint64_t>(vocab));
    std::vector<std::int32_t> ids{static_cast<std::int32_t>(bos >= 0 && bos < vocab ? bos : drawn)};
    if (model.info().encoder_decoder) {
      // What these write answers an input; any ids are one.
      while (static_cast<std::int64_t>(ids.size()) < length)
        ids.push_back(static_cast<std::int32_t>(rng.next() % static_cast<std::uint64_t>(vocab)));
    } else if (length > 1) {
      GenerateOptions options;
      options.max_new_tokens = length - 1;
      options.sampling.do_sample = true;
      options.sampling.temperature = 1;
      options.sampling.top_k = 0;
      options.sampling.top_p = 1;
      options.sampling.seed = static_cast<std::uint64_t>(i);
      const Generated made = generate(model, nullptr, ids, options, exec);
      ids.insert(ids.end(), made.ids.begin(), made.ids.end());
    }
    out.push_back(std::move(ids));
  }
  return out;
}

PerplexityResult measure_divergence(const EvalModel& merged, const EvalModel& adapted,
                                    std::span<const std::vector<std::int32_t>> sequences) {
  if (merged.model.info().encoder_decoder) return measure_encoder_decoders(merged, adapted, sequences);
  EvalPlan plan;
  plan.info = protocol_info(Protocol::gptq);
  for (const std::vector<std::int32_t>& ids : sequences) {
    if (ids.size() < 2) continue;
    Window& window = plan.windows.emplace_back();
    window.ids.assign(ids.begin(), ids.end() - 1);
    window.targets.assign(ids.begin() + 1, ids.end());
    window.weight = static_cast<double>(window.targets.size());
    plan.ctx = std::max(plan.ctx, static_cast<std::int64_t>(window.ids.size()));
    plan.tokens += static_cast<std::int64_t>(ids.size());
  }
  if (plan.windows.empty()) throw bad_input("no sequence of two tokens or more to compare the models on");
  return measure_perplexity(merged, &adapted, plan);
}

}  // namespace nibble
