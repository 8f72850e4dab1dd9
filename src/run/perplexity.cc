#include "run/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "run/token_score.h"

namespace nibble {
namespace {

/// Logits held at once; two models need it twice.
constexpr std::int64_t kLogitBytes = std::int64_t{64} << 20;
constexpr std::int64_t kMaxRows = 512;

/// A sequence that is closed again whatever happens.
class OpenSequence {
 public:
  OpenSequence(const EvalModel& eval, std::int64_t length)
      : eval_(eval), length_(length), id_(eval.model.open_sequence()) {}
  ~OpenSequence() { eval_.model.close_sequence(id_); }
  OpenSequence(const OpenSequence&) = delete;
  OpenSequence& operator=(const OpenSequence&) = delete;

  void forward(std::span<const std::int32_t> ids, bool all_logits, std::vector<float>& logits) {
    const BatchItem item{.sequence = id_, .ids = ids, .all_logits = all_logits, .final_length = length_};
    eval_.model.forward({&item, 1}, logits, eval_.exec);
  }

 private:
  EvalModel eval_;
  std::int64_t length_;
  std::int64_t id_;
};

/// Runs windows through one model or two in step.
class WindowScorer {
 public:
  WindowScorer(const EvalModel& model, const EvalModel* base)
      : model_(model), base_(base), vocab_(model.model.info().vocab_size) {
    rows_ = std::clamp<std::int64_t>(kLogitBytes / (4 * std::max<std::int64_t>(vocab_, 1)), 16, kMaxRows);
  }

  /// Appends the scores of the window's targets.
  void score(const Window& window, std::vector<TokenScore>& scores) {
    const auto length = static_cast<std::int64_t>(window.ids.size());
    OpenSequence sequence(model_, length);
    std::optional<OpenSequence> base_sequence;
    if (base_ != nullptr) base_sequence.emplace(*base_, length);
    const std::span<const std::int32_t> ids(window.ids);
    const auto targets = std::span<const std::int32_t>(window.targets);
    // Positions before the first scored one need no logits.
    for (std::int64_t at = 0; at < window.first;) {
      const std::int64_t rows = std::min(kMaxRows, window.first - at);
      forward(sequence, base_sequence, part(ids, at, rows), false);
      at += rows;
    }
    const auto count = static_cast<std::int64_t>(targets.size());
    for (std::int64_t at = 0; at < count;) {
      const std::int64_t rows = std::min(rows_, count - at);
      forward(sequence, base_sequence, part(ids, window.first + at, rows), true);
      const std::size_t old = scores.size();
      scores.resize(old + static_cast<std::size_t>(rows));
      score_rows(part(targets, at, rows), logits_.data(), base_ != nullptr ? base_logits_.data() : nullptr, vocab_,
                 model_.exec.pool, scores.data() + old);
      at += rows;
    }
  }

 private:
  static std::span<const std::int32_t> part(std::span<const std::int32_t> ids, std::int64_t at, std::int64_t count) {
    return ids.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
  }

  void forward(OpenSequence& sequence, std::optional<OpenSequence>& base, std::span<const std::int32_t> ids, bool all) {
    sequence.forward(ids, all, logits_);
    if (base) base->forward(ids, all, base_logits_);
    const std::size_t expected = (all ? ids.size() : 1) * static_cast<std::size_t>(vocab_);
    check(logits_.size() == expected, "perplexity: number of logits");
    check(!base || base_logits_.size() == expected, "perplexity: number of the base model's logits");
  }

  EvalModel model_;
  const EvalModel* base_;
  std::int64_t vocab_;
  std::int64_t rows_ = 0;
  std::vector<float> logits_, base_logits_;
};

void check_finite(std::span<const TokenScore> scores, std::int64_t window) {
  for (const TokenScore& score : scores) {
    if (!std::isfinite(score.nll) || !std::isfinite(score.base_nll) || !std::isfinite(score.kl))
      throw bad_input("window ", window,
                      ": the model's logits are not finite; `nibble inspect --verify` tells which weights are not");
  }
}

/// Mean and standard error of the mean (divisor n - 1), from sums: how llama-perplexity does it.
Estimate estimate_of(double sum, double sum_of_squares, double count) {
  Estimate out{.value = sum / count, .error = 0};
  const double variance = sum_of_squares / count - out.value * out.value;
  if (variance > 0 && count > 1) out.error = std::sqrt(variance / (count - 1));
  return out;
}

template <class F>
Estimate estimate(std::span<const TokenScore> scores, F&& value_of) {
  double sum = 0, squares = 0;
  for (const TokenScore& score : scores) {
    const double value = value_of(score);
    sum += value;
    squares += value * value;
  }
  return estimate_of(sum, squares, static_cast<double>(scores.size()));
}

Divergence divergence_of(std::span<const TokenScore> scores) {
  Divergence out;
  const auto count = static_cast<double>(scores.size());
  out.base_ppl = std::exp(estimate(scores, [](const TokenScore& s) { return s.base_nll; }).value);
  // The error of the difference of means, each token's own difference being one sample, is that with the covariance.
  const Estimate log_ratio = estimate(scores, [](const TokenScore& s) { return s.nll - s.base_nll; });
  out.ppl_ratio.value = std::exp(log_ratio.value);
  out.ppl_ratio.error = out.ppl_ratio.value * log_ratio.error;
  out.kl = estimate(scores, [](const TokenScore& s) { return s.kl; });
  out.same_top = estimate(scores, [](const TokenScore& s) { return s.same_top ? 1.0 : 0.0; });
  const auto delta = [](const TokenScore& s) { return std::exp(-s.nll) - std::exp(-s.base_nll); };
  out.delta_p = estimate(scores, delta);
  double squares = 0;
  for (const TokenScore& score : scores) squares += delta(score) * delta(score);
  out.delta_p_rms = std::sqrt(squares / count);
  std::vector<double> sorted;
  for (const TokenScore& score : scores) sorted.push_back(score.kl);
  std::sort(sorted.begin(), sorted.end());
  out.kl_median = percentile_of_sorted(sorted, 0.5);
  out.kl_p99 = percentile_of_sorted(sorted, 0.99);
  out.kl_p999 = percentile_of_sorted(sorted, 0.999);
  out.kl_max = sorted.back();
  return out;
}

/// Per word and per byte: the total negative log likelihood over the documents' words and bytes.
void add_lm_eval(const EvalPlan& plan, const Estimate& nll, PerplexityResult& result) {
  const double total = nll.value * static_cast<double>(result.scored);
  const auto words = static_cast<double>(std::max<std::int64_t>(plan.words, 1));
  const auto bytes = static_cast<double>(std::max<std::int64_t>(plan.bytes, 1));
  result.ppl.value = std::exp(total / words);
  result.ppl.error = result.ppl.value * nll.error * static_cast<double>(result.scored) / words;
  result.byte_ppl = std::exp(total / bytes);
  result.bits_per_byte = total / bytes / std::log(2.0);
}

void check_models(const EvalModel& model, const EvalModel* base, const EvalPlan& plan) {
  for (const Model* one : {&model.model, base == nullptr ? nullptr : &base->model}) {
    if (one == nullptr || !one->info().encoder_decoder) continue;
    throw bad_input(one->info().architecture,
                    " is an encoder-decoder: perplexity measures models that continue a text");
  }
  const std::int64_t vocab = model.model.info().vocab_size;
  if (base != nullptr && base->model.info().vocab_size != vocab)
    throw bad_input("the base model has a vocabulary of ", base->model.info().vocab_size, " tokens, the model of ",
                    vocab, ": they cannot be compared");
  const std::int64_t context = base != nullptr ? base->model.info().context_length : 0;
  if (context > 0 && context < plan.ctx)
    throw bad_input("a window of ", plan.ctx, " tokens is longer than the base model's context of ", context);
  const auto outside = [vocab](std::int32_t id) { return id < 0 || id >= vocab; };
  for (const Window& window : plan.windows) {
    for (const auto* ids : {&window.ids, &window.targets}) {
      const auto found = std::find_if(ids->begin(), ids->end(), outside);
      if (found != ids->end())
        throw bad_input("the tokenizer gives token ", *found, ", but the model's vocabulary has ", vocab);
    }
  }
}

}  // namespace

PerplexityResult measure_perplexity(const EvalModel& model, const EvalModel* base, const EvalPlan& plan,
                                    const std::function<void(const RunningPerplexity&)>& on_window) {
  check_models(model, base, plan);
  WindowScorer scorer(model, base);
  std::vector<TokenScore> scores;
  PerplexityResult result;
  double weighted = 0, weights = 0, running_sum = 0;
  for (std::size_t w = 0; w < plan.windows.size(); ++w) {
    const Window& window = plan.windows[w];
    const std::size_t old = scores.size();
    scorer.score(window, scores);
    const std::span<const TokenScore> fresh = std::span<const TokenScore>(scores).subspan(old);
    const auto number = static_cast<std::int64_t>(w) + 1;
    check_finite(fresh, number);
    weighted += window.weight * estimate(fresh, [](const TokenScore& s) { return s.nll; }).value;
    weights += window.weight;
    const double ppl = weights > 0 ? std::exp(weighted / weights) : 0;
    running_sum += ppl;
    if (on_window) on_window({number, static_cast<std::int64_t>(plan.windows.size()), ppl});
  }
  result.scored = static_cast<std::int64_t>(scores.size());
  if (weights <= 0) throw bad_input("the text is too short: no token would be scored");
  const Estimate nll = estimate(scores, [](const TokenScore& s) { return s.nll; });
  result.token_ppl.value = std::exp(weighted / weights);
  result.token_ppl.error = result.token_ppl.value * nll.error;
  result.mean_of_running = running_sum / static_cast<double>(plan.windows.size());
  result.ppl = result.token_ppl;
  if (plan.info.protocol == Protocol::lm_eval) add_lm_eval(plan, nll, result);
  if (base != nullptr) result.divergence = divergence_of(scores);
  return result;
}

}  // namespace nibble
