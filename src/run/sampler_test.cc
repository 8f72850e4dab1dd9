#include "run/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace nibble {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

SamplingOptions sampling() {
  SamplingOptions options;
  options.do_sample = true;
  return options;
}

/// How often each id is drawn.
std::map<std::int32_t, int> draws(const SamplingOptions& options, const std::vector<float>& logits, int times) {
  Sampler sampler(options);
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < times; ++i) ++counts[sampler.next(logits, {})];
  return counts;
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  Sampler sampler({});
  EXPECT_EQ(sampler.next(std::vector<float>{1, 3, 3, 2}, {}), 1);
  EXPECT_EQ(sampler.next(std::vector<float>{kNan, -kInf, -5}, {}), 2);
  EXPECT_EQ(sampler.next(std::vector<float>{kNan, -kInf, -kInf}, {}), 1);
  EXPECT_THROW(sampler.next(std::vector<float>{kNan, kNan}, {}), Error);
}

TEST(Sampler, TemperatureZeroIsGreedy) {
  SamplingOptions options = sampling();
  options.temperature = 0;
  EXPECT_EQ(draws(options, {0, 1, 0.99f}, 50).size(), 1u);
}

TEST(Sampler, DrawsByProbability) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  const auto counts = draws(sampling(), logits, 20000);
  EXPECT_NEAR(counts.at(0) / 20000.0, 0.5, 0.015);
  EXPECT_NEAR(counts.at(1) / 20000.0, 0.3, 0.015);
  EXPECT_NEAR(counts.at(2) / 20000.0, 0.2, 0.015);
  SamplingOptions cold = sampling();
  cold.temperature = 0.5;  // probabilities squared: 25 : 9 : 4
  EXPECT_NEAR(draws(cold, logits, 20000).at(0) / 20000.0, 25.0 / 38, 0.015);
}

TEST(Sampler, TopKKeepsTies) {
  SamplingOptions options = sampling();
  options.top_k = 2;
  const auto counts = draws(options, {1, 5, 3, 3, 0}, 500);
  EXPECT_EQ(counts.size(), 3u);
  EXPECT_EQ(counts.count(0) + counts.count(4), 0u);
  options.top_k = 100;
  EXPECT_EQ(draws(options, {1, 1.5f, 1}, 500).size(), 3u);
}

// As Transformers' TopPLogitsWarper: the token that crosses top_p is kept.
TEST(Sampler, TopP) {
  const std::vector<float> logits{std::log(0.1f), std::log(0.5f), std::log(0.15f), std::log(0.25f)};
  SamplingOptions options = sampling();
  options.top_p = 0.6;
  auto counts = draws(options, logits, 500);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts.count(1) + counts.count(3), 2u);
  options.top_p = 0.8;
  EXPECT_EQ(draws(options, logits, 500).size(), 3u);
  options.top_p = 1e-9;
  EXPECT_EQ(draws(options, logits, 100).size(), 1u);
  // Many unlikely tokens: what the shortcut drops must not change what is kept.
  std::vector<float> flat(1000, 0.0f);
  options.top_p = 0.9;
  EXPECT_EQ(draws(options, flat, 20000).size(), 900u);
}

TEST(Sampler, MinP) {
  SamplingOptions options = sampling();
  options.min_p = 0.25;
  const auto counts = draws(options, {std::log(0.6f), std::log(0.2f), std::log(0.1f), -kInf}, 500);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts.count(0) + counts.count(1), 2u);
}

TEST(Sampler, RepetitionPenalty) {
  SamplingOptions options;
  options.repetition_penalty = 2;
  Sampler sampler(options);
  const std::vector<std::int32_t> seen{0, 0, 2, 77, -1};
  EXPECT_EQ(sampler.next(std::vector<float>{4, 2.5f, 3}, seen), 1);     // 2, 2.5, 1.5
  EXPECT_EQ(sampler.next(std::vector<float>{-2, -3, -1.6f}, seen), 1);  // -4, -3, -3.2
}

TEST(Sampler, SeedRepeats) {
  const auto run = [](std::uint64_t seed) {
    SamplingOptions options = sampling();
    options.seed = seed;
    Sampler sampler(options);
    std::vector<std::int32_t> ids;
    const std::vector<float> logits(50, 1.0f);
    for (int i = 0; i < 40; ++i) ids.push_back(sampler.next(logits, {}));
    return ids;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(Sampler, RefusesNonsense) {
  const auto refused = [](auto&& change) {
    SamplingOptions options;
    change(options);
    EXPECT_THROW(Sampler{options}, Error);
  };
  refused([](SamplingOptions& o) { o.temperature = -1; });
  refused([](SamplingOptions& o) { o.temperature = std::nan(""); });
  refused([](SamplingOptions& o) { o.top_k = -1; });
  refused([](SamplingOptions& o) { o.top_p = 0; });
  refused([](SamplingOptions& o) { o.top_p = 1.5; });
  refused([](SamplingOptions& o) { o.min_p = 2; });
  refused([](SamplingOptions& o) { o.repetition_penalty = 0; });
}

}  // namespace
}  // namespace nibble
