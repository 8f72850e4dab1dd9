#include "run/token_score.h"

#include <algorithm>
#include <cmath>

namespace nibble {
namespace {

double kl_of(const float* p, const float* q, double p_lse, double q_lse, std::int64_t vocab) {
  double sum = 0;
  for (std::int64_t i = 0; i < vocab; ++i) {
    const double log_p = static_cast<double>(p[i]) - p_lse;
    const double log_q = static_cast<double>(q[i]) - q_lse;
    sum += std::exp(log_p) * (log_p - log_q);
  }
  // Rounding can leave a tiny negative value where both are equal.
  return sum < 0 ? 0 : sum;
}

}  // namespace

double log_sum_exp(const float* row, std::int64_t vocab) {
  const double top = *std::max_element(row, row + vocab);
  double sum = 0;
  for (std::int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]) - top);
  return top + std::log(sum);
}

void score_rows(std::span<const std::int32_t> targets, const float* logits, const float* base_logits,
                std::int64_t vocab, ThreadPool& pool, TokenScore* out) {
  pool.run(static_cast<std::int64_t>(targets.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float* q = logits + row * vocab;
      const std::int32_t target = targets[static_cast<std::size_t>(row)];
      const double q_lse = log_sum_exp(q, vocab);
      TokenScore& score = out[row];
      score = {};
      score.nll = q_lse - static_cast<double>(q[target]);
      if (base_logits == nullptr) continue;
      const float* p = base_logits + row * vocab;
      const double p_lse = log_sum_exp(p, vocab);
      score.base_nll = p_lse - static_cast<double>(p[target]);
      score.kl = kl_of(p, q, p_lse, q_lse, vocab);
      score.same_top = std::max_element(p, p + vocab) - p == std::max_element(q, q + vocab) - q;
    }
  });
}

double percentile_of_sorted(std::span<const double> sorted, double fraction) {
  if (sorted.empty()) return 0;
  const double at = std::clamp(fraction, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const double part = at - static_cast<double>(below);
  const double above = sorted[std::min(below + 1, sorted.size() - 1)];
  return sorted[below] + part * (above - sorted[below]);
}

}  // namespace nibble
