// What merging costs: the merged model against base and adapter at run time.
#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "run/adapter/merge.h"
#include "run/generate.h"

namespace nibble {

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
    if (length > 1) {
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
