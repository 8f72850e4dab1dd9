#include "nn/moe.h"

#include <algorithm>
#include <cmath>

namespace nibble::nn {
namespace {

/// weights [experts] gets the softmax over the `top_k` highest scores [experts], 0 elsewhere. Equal scores: the lower
/// number wins. Softmax over all experts, renormalised over those chosen, is the same.
void choose(const float* scores, std::int64_t experts, std::int64_t top_k, float* weights) {
  std::fill_n(weights, experts, 0.0F);
  double total = 0;
  const float highest = *std::max_element(scores, scores + experts);
  for (std::int64_t k = 0; k < top_k; ++k) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < experts; ++e) {
      if (weights[e] == 0 && (best < 0 || scores[e] > scores[best])) best = e;
    }
    if (best < 0) break;
    // Never 0, so that an expert is not chosen twice; one so far below the best adds nothing that f32 can hold.
    weights[best] = std::max(std::exp(scores[best] - highest), 1e-38F);
    total += weights[best];
  }
  for (std::int64_t e = 0; e < experts; ++e) weights[e] = static_cast<float>(weights[e] / total);
}

}  // namespace

void Moe::forward(const float* x, std::int64_t rows, float* y, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const auto count = static_cast<std::int64_t>(experts.size());
  const std::int64_t hidden = router.inputs();
  float* scores = exec.arena.take<float>(rows * count).data();
  float* weights = exec.arena.take<float>(rows * count).data();
  float* in = exec.arena.take<float>(rows * hidden).data();
  float* out = exec.arena.take<float>(rows * hidden).data();
  router.forward(x, rows, scores, exec);
  for (std::int64_t r = 0; r < rows; ++r) choose(scores + r * count, count, top_k, weights + r * count);

  std::fill_n(y, rows * hidden, 0.0F);
  for (std::int64_t e = 0; e < count; ++e) {
    std::int64_t taken = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      if (weights[r * count + e] != 0) std::copy_n(x + r * hidden, hidden, in + taken++ * hidden);
    }
    if (taken == 0) continue;
    experts[static_cast<std::size_t>(e)].forward(in, taken, out, exec);
    const float* from = out;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float weight = weights[r * count + e];
      if (weight == 0) continue;
      for (std::int64_t i = 0; i < hidden; ++i) y[r * hidden + i] += weight * from[i];
      from += hidden;
    }
  }
}

}  // namespace nibble::nn
