// Perplexity of a model on a planned text, and how far its predictions are from a base model's: Kullback-Leibler
// divergence and agreement on the likeliest token. Log-sum-exps and sums are in f64; the result does not depend on the
// number of threads.
#pragma once
#include <functional>
#include <optional>

#include "device/device.h"
#include "run/model.h"
#include "run/protocol.h"

namespace nibble {

/// A model and where it runs.
struct EvalModel {
  Model& model;
  Exec& exec;
};

/// A mean and the standard error of it.
struct Estimate {
  double value = 0;
  double error = 0;
};

/// The estimate after some of the windows.
struct RunningPerplexity {
  std::int64_t window = 0;  ///< counted from 1
  std::int64_t windows = 0;
  double ppl = 0;
};

/// Base model P, model Q, over all scored tokens. Names and formulas as llama-perplexity --kl-divergence.
struct Divergence {
  double base_ppl = 0;
  Estimate ppl_ratio;  ///< PPL(Q) / PPL(P); the error knows that both saw the same tokens
  Estimate kl;         ///< mean KL(P || Q) per token, in nats
  double kl_median = 0, kl_p99 = 0, kl_p999 = 0, kl_max = 0;
  Estimate same_top;  ///< share of positions whose likeliest token is the same
  Estimate delta_p;   ///< mean of Q's minus P's probability of the right token
  double delta_p_rms = 0;
};

struct PerplexityResult {
  Estimate ppl;                ///< the protocol's own figure: per token, for lm-eval per word
  Estimate token_ppl;          ///< exp(mean negative log likelihood per token)
  std::int64_t scored = 0;     ///< tokens that counted
  double mean_of_running = 0;  ///< mean of the running perplexities: what Quanto's bench reports
  double byte_ppl = 0;         ///< lm-eval only
  double bits_per_byte = 0;    ///< lm-eval only
  std::optional<Divergence> divergence;
};

/// Runs the model (and the base, if any) over all windows. `on_window` may be empty. Throws Error(bad_input) when the
/// vocabularies differ, a token is outside the model's vocabulary, or logits are not finite.
PerplexityResult measure_perplexity(const EvalModel& model, const EvalModel* base, const EvalPlan& plan,
                                    const std::function<void(const RunningPerplexity&)>& on_window = {});

}  // namespace nibble
