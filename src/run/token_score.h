// What single rows of logits say about a token, and statistics over many of them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace nibble {

/// One scored position.
struct TokenScore {
  double nll = 0;       ///< -log q(target)
  double base_nll = 0;  ///< -log p(target) under the base model
  double kl = 0;        ///< KL(p || q), nats
  bool same_top = false;
};

/// Scores of `targets.size()` rows of `logits` [rows, vocab]; base_logits may be null. Values are NaN where logits are
/// not finite.
void score_rows(std::span<const std::int32_t> targets, const float* logits, const float* base_logits,
                std::int64_t vocab, ThreadPool& pool, TokenScore* out);

/// log(sum(exp(row))) of `vocab` logits.
double log_sum_exp(const float* row, std::int64_t vocab);

/// Value below which `fraction` of the sorted values lie, between neighbours by linear interpolation.
double percentile_of_sorted(std::span<const double> sorted, double fraction);

}  // namespace nibble
