#include "calib/held_out.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "calib/held_out_text.h"
#include "run/protocol.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

/// The source and the windows that it reads.
struct Base {
  std::unique_ptr<Model> model;
  EvalPlan plan;
};

Base base_of(const std::shared_ptr<const Checkpoint>& source, const HeldOutOptions& options, Exec& exec) {
  Base base;
  base.model = Model::load(source, {}, exec);
  if (base.model->info().encoder_decoder) throw bad_input("a model with an encoder");
  const std::int64_t context = base.model->info().context_length;
  EvalOptions eval;
  eval.protocol = Protocol::gptq;
  eval.ctx = context > 0 ? std::min(context, options.ctx) : options.ctx;
  eval.max_windows = options.windows;
  const auto tokenizer = Tokenizer::open(source->folder());
  base.plan = plan_evaluation(document_of(std::string(kHeldOutText)), *tokenizer, context, eval);
  return base;
}

}  // namespace

HeldOutResult compare_on_held_out_text(std::shared_ptr<const Checkpoint> source,
                                       std::shared_ptr<const Checkpoint> quantized, const HeldOutOptions& options,
                                       Exec& exec, const ProgressCallback& progress) {
  HeldOutResult result;
  Base base;
  try {
    base = base_of(source, options, exec);
  } catch (const Error& error) {
    result.reason = error.what();
    return result;
  }
  const std::unique_ptr<Model> model = Model::load(std::move(quantized), {}, exec);
  const EvalModel base_model{*base.model, exec}, other{*model, exec};
  const PerplexityResult measured = measure_perplexity(other, &base_model, base.plan, [&](const RunningPerplexity& at) {
    if (progress) progress({"comparing", "with the source", at.window, at.windows});
  });
  result.divergence = measured.divergence;
  result.tokens = measured.scored;
  return result;
}

double suspicious_divergence(double bits_per_weight) {
  if (bits_per_weight >= 3.5) return 0.5;
  return bits_per_weight >= 2.5 ? 2 : std::numeric_limits<double>::infinity();
}

}  // namespace nibble
