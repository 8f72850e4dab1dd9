#include "run/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

/// The largest logit's index, the lowest of equals; NaN never wins.
std::int32_t argmax(std::span<const float> logits) {
  std::int64_t best = -1;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) continue;
    if (best < 0 || logits[i] > logits[static_cast<std::size_t>(best)]) best = static_cast<std::int64_t>(i);
  }
  if (best < 0) throw runtime_failure("the model computed no number as a logit (only NaN)");
  return static_cast<std::int32_t>(best);
}

}  // namespace

void check_sampling(const SamplingOptions& o) {
  const auto require = [](bool holds, const char* what, double value) {
    if (!holds) throw bad_input(what, ", not ", value);
  };
  require(std::isfinite(o.temperature) && o.temperature >= 0, "temperature must be at least 0", o.temperature);
  require(o.top_k >= 0, "top_k must be at least 0", static_cast<double>(o.top_k));
  require(o.top_p > 0 && o.top_p <= 1, "top_p must be above 0 and at most 1", o.top_p);
  require(o.min_p >= 0 && o.min_p <= 1, "min_p must be between 0 and 1", o.min_p);
  require(std::isfinite(o.repetition_penalty) && o.repetition_penalty > 0, "repetition_penalty must be above 0",
          o.repetition_penalty);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), rng_(options.seed) { check_sampling(options); }

std::int32_t Sampler::next(std::span<const float> logits, std::span<const std::int32_t> seen) {
  scores_.assign(logits.begin(), logits.end());
  penalize(seen);
  const std::int32_t best = argmax(scores_);
  if (!options_.do_sample || options_.temperature == 0) return best;

  candidates_.clear();
  const auto temperature = static_cast<float>(options_.temperature);
  for (std::size_t i = 0; i < scores_.size(); ++i) {
    if (!std::isnan(scores_[i])) candidates_.push_back({scores_[i] / temperature, static_cast<std::int32_t>(i)});
  }
  keep_top_k();
  keep_likely();
  return draw();
}

void Sampler::penalize(std::span<const std::int32_t> seen) {
  if (options_.repetition_penalty == 1) return;
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  std::vector<std::int32_t> once(seen.begin(), seen.end());
  std::sort(once.begin(), once.end());
  once.erase(std::unique(once.begin(), once.end()), once.end());
  for (const std::int32_t id : once) {
    if (id < 0 || static_cast<std::size_t>(id) >= scores_.size()) continue;
    float& score = scores_[static_cast<std::size_t>(id)];
    score = score < 0 ? score * penalty : score / penalty;
  }
}

void Sampler::keep_top_k() {
  const auto k = static_cast<std::size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  const auto more = [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; };
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k) - 1, candidates_.end(),
                   more);
  const float least = candidates_[k - 1].logit;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < least; });
}

/// top-p and min-p; leaves the candidates sorted, the most likely first.
void Sampler::keep_likely() {
  float top = -std::numeric_limits<float>::infinity();
  for (const Candidate& c : candidates_) top = std::max(top, c.logit);
  const auto weight = [&](const Candidate& c) { return c.logit == top ? 1.0 : std::exp(double{c.logit} - top); };
  double total = 0;
  for (const Candidate& c : candidates_) total += weight(c);
  // Tokens this unlikely cannot reach what top-p leaves out even together; dropping them first saves sorting them.
  double least = options_.min_p;
  if (options_.top_p < 1) {
    const double rest = (1 - options_.top_p) * total / static_cast<double>(candidates_.size());
    least = std::max(least, std::min(rest, 1.0));
  }
  if (least > 0) std::erase_if(candidates_, [&](const Candidate& c) { return weight(c) < least; });
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  });
  if (options_.top_p == 1) return;
  double before = 0;
  std::size_t kept = 0;
  while (kept < candidates_.size() && (kept == 0 || before < options_.top_p * total))
    before += weight(candidates_[kept++]);
  candidates_.resize(kept);
}

std::int32_t Sampler::draw() {
  const float top = candidates_.front().logit;
  const auto weight = [&](const Candidate& c) { return c.logit == top ? 1.0 : std::exp(double{c.logit} - top); };
  double total = 0;
  for (const Candidate& c : candidates_) total += weight(c);
  double left = rng_.uniform() * total;
  for (const Candidate& c : candidates_) {
    left -= weight(c);
    if (left < 0) return c.id;
  }
  return candidates_.back().id;
}

}  // namespace nibble
