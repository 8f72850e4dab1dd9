#include "run/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "run/fake_test_models.h"
#include "run/token_score.h"

namespace nibble {
namespace {

using test::numbers;
using test::NumberTokenizer;
using test::TableModel;

constexpr std::int64_t kVocab = 13;

struct Machine {
  explicit Machine(int threads = 1) : pool(threads), exec{.target = Target::ref, .pool = pool, .arena = arena} {}
  ThreadPool pool;
  Arena arena;
  Exec exec;
};

/// A text of ids below the vocabulary.
std::vector<EvalDocument> some_text(int length) {
  std::string text;
  for (int i = 0; i < length; ++i) text += std::to_string((i * i + 3 * i) % kVocab) + " ";
  return document_of(text);
}

EvalPlan some_plan(Protocol protocol, std::int64_t ctx, std::int64_t stride = 0) {
  NumberTokenizer tokenizer;
  tokenizer.bos = 12;
  tokenizer.eos = 11;
  tokenizer.add_bos = true;
  return plan_evaluation(some_text(100), tokenizer, 64, {.protocol = protocol, .ctx = ctx, .stride = stride});
}

double at(const TableModel& model, std::int32_t last, std::int64_t position, std::int64_t next) {
  return static_cast<double>(model.logit(last, position, next));
}

/// -log softmax, from its definition.
double nll_of(const TableModel& model, const Window& window, std::size_t i) {
  const std::int64_t position = window.first + static_cast<std::int64_t>(i);
  double sum = 0;
  for (std::int64_t v = 0; v < kVocab; ++v) sum += std::exp(at(model, window.ids[position], position, v));
  return std::log(sum) - at(model, window.ids[position], position, window.targets[i]);
}

TEST(Perplexity, IsTheProtocolsMeanOfKnownLogits) {
  for (const ProtocolInfo& info : protocols()) {
    SCOPED_TRACE(info.name);
    const EvalPlan plan = some_plan(info.protocol, 20, info.stride != 0 ? 7 : 0);
    double weighted = 0, weights = 0, total = 0, squares = 0;
    std::int64_t count = 0;
    for (const Window& window : plan.windows) {
      TableModel table(kVocab, 0.3f);
      double sum = 0;
      for (std::size_t i = 0; i < window.targets.size(); ++i) {
        const double nll = nll_of(table, window, i);
        sum += nll;
        squares += nll * nll;
      }
      total += sum;
      count += static_cast<std::int64_t>(window.targets.size());
      weighted += window.weight * sum / static_cast<double>(window.targets.size());
      weights += window.weight;
    }
    TableModel model(kVocab, 0.3f);
    Machine machine(2);
    const PerplexityResult result = measure_perplexity({model, machine.exec}, nullptr, plan);
    EXPECT_EQ(result.scored, count);
    EXPECT_NEAR(result.token_ppl.value, std::exp(weighted / weights), 1e-9);
    const double mean = total / static_cast<double>(count);
    const double deviation =
        std::sqrt((squares / static_cast<double>(count) - mean * mean) / (static_cast<double>(count) - 1));
    EXPECT_NEAR(result.token_ppl.error, result.token_ppl.value * deviation, 1e-9);
    EXPECT_EQ(model.open_sequences(), 0u);
    if (info.protocol == Protocol::lm_eval) {
      EXPECT_NEAR(result.ppl.value, std::exp(total / static_cast<double>(plan.words)), 1e-9);
      EXPECT_NEAR(result.bits_per_byte, total / static_cast<double>(plan.bytes) / std::log(2.0), 1e-9);
    } else {
      EXPECT_EQ(result.ppl.value, result.token_ppl.value);
    }
  }
}

TEST(Perplexity, UniformModelHasThePerplexityOfItsVocabulary) {
  TableModel model(kVocab, 0);
  Machine machine;
  const PerplexityResult result = measure_perplexity({model, machine.exec}, nullptr, some_plan(Protocol::gptq, 10));
  EXPECT_NEAR(result.ppl.value, static_cast<double>(kVocab), 1e-9);
  EXPECT_NEAR(result.ppl.error, 0, 1e-6);
  EXPECT_NEAR(result.mean_of_running, static_cast<double>(kVocab), 1e-9);
}

TEST(Perplexity, RunningValuesEndInTheResult) {
  TableModel model(kVocab, 0.5f);
  Machine machine;
  const EvalPlan plan = some_plan(Protocol::llama_cpp, 16);
  std::vector<double> running;
  const auto result = measure_perplexity({model, machine.exec}, nullptr, plan, [&](const RunningPerplexity& at) {
    running.push_back(at.ppl);
    EXPECT_EQ(at.window, static_cast<std::int64_t>(running.size()));
    EXPECT_EQ(at.windows, static_cast<std::int64_t>(plan.windows.size()));
  });
  ASSERT_EQ(running.size(), plan.windows.size());
  EXPECT_EQ(running.back(), result.ppl.value);
}

TEST(Perplexity, ThreadsDoNotChangeABit) {
  TableModel model(kVocab, 0.4f);
  Machine one(1), three(3);
  const EvalPlan plan = some_plan(Protocol::hf_stride, 30, 10);
  EXPECT_EQ(measure_perplexity({model, one.exec}, nullptr, plan).ppl.value,
            measure_perplexity({model, three.exec}, nullptr, plan).ppl.value);
}

TEST(Divergence, OfAModelFromItselfIsNothing) {
  TableModel model(kVocab, 0.4f), base(kVocab, 0.4f);
  Machine machine;
  const EvalModel base_model{base, machine.exec};
  const auto result = measure_perplexity({model, machine.exec}, &base_model, some_plan(Protocol::gptq, 20));
  ASSERT_TRUE(result.divergence);
  EXPECT_EQ(result.divergence->kl.value, 0);
  EXPECT_EQ(result.divergence->same_top.value, 1);
  EXPECT_EQ(result.divergence->ppl_ratio.value, 1);
  EXPECT_NEAR(result.divergence->base_ppl, result.ppl.value, 1e-9);
}

TEST(Divergence, IsItsDefinitionOnKnownLogits) {
  TableModel model(kVocab, 0.2f), base(kVocab, 0.5f);
  Machine machine;
  const EvalPlan plan = some_plan(Protocol::gptq, 20);
  double kl_sum = 0, kl_max = 0, nll = 0, base_nll = 0, count = 0;
  for (const Window& window : plan.windows) {
    for (std::size_t i = 0; i < window.targets.size(); ++i) {
      const auto position = static_cast<std::int64_t>(i);
      double p_sum = 0, q_sum = 0, kl = 0;
      for (std::int64_t v = 0; v < kVocab; ++v) {
        p_sum += std::exp(at(base, window.ids[i], position, v));
        q_sum += std::exp(at(model, window.ids[i], position, v));
      }
      for (std::int64_t v = 0; v < kVocab; ++v) {
        const double p = std::exp(at(base, window.ids[i], position, v)) / p_sum;
        const double q = std::exp(at(model, window.ids[i], position, v)) / q_sum;
        kl += p * std::log(p / q);
      }
      kl_sum += kl;
      kl_max = std::max(kl_max, kl);
      nll += nll_of(model, window, i);
      base_nll += nll_of(base, window, i);
      ++count;
    }
  }
  const EvalModel base_model{base, machine.exec};
  const auto result = measure_perplexity({model, machine.exec}, &base_model, plan);
  ASSERT_TRUE(result.divergence);
  EXPECT_NEAR(result.divergence->kl.value, kl_sum / count, 1e-9);
  EXPECT_NEAR(result.divergence->kl_max, kl_max, 1e-9);
  EXPECT_GE(result.divergence->kl_p999, result.divergence->kl_median);
  EXPECT_NEAR(result.divergence->base_ppl, std::exp(base_nll / count), 1e-9);
  EXPECT_NEAR(result.divergence->ppl_ratio.value, std::exp((nll - base_nll) / count), 1e-9);
  // Scaling all logits keeps the order of tokens.
  EXPECT_EQ(result.divergence->same_top.value, 1);
}

TEST(Perplexity, BadModelsAreOneClearError) {
  Machine machine;
  TableModel model(kVocab, 0.2f), other(kVocab + 1, 0.2f), small(5, 0.2f);
  const EvalPlan plan = some_plan(Protocol::gptq, 20);
  const EvalModel base{other, machine.exec};
  EXPECT_THROW(measure_perplexity({model, machine.exec}, &base, plan), Error);
  EXPECT_THROW(measure_perplexity({small, machine.exec}, nullptr, plan), Error);
  model.poison = true;
  try {
    measure_perplexity({model, machine.exec}, nullptr, plan);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("not finite"), std::string::npos);
    EXPECT_EQ(model.open_sequences(), 0u);
  }
}

TEST(TokenScore, LogSumExpDoesNotOverflow) {
  const std::vector<float> row{1000.f, 1000.f, -1000.f};
  EXPECT_NEAR(log_sum_exp(row.data(), 3), 1000 + std::log(2.0), 1e-12);
}

TEST(TokenScore, PercentilesInterpolate) {
  const std::vector<double> values{1, 2, 4};
  EXPECT_EQ(percentile_of_sorted(values, 0), 1);
  EXPECT_EQ(percentile_of_sorted(values, 0.5), 2);
  EXPECT_EQ(percentile_of_sorted(values, 0.75), 3);
  EXPECT_EQ(percentile_of_sorted(values, 1), 4);
}

}  // namespace
}  // namespace nibble
