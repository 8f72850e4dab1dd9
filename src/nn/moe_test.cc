#include "nn/moe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "layout/dense/dense.h"

namespace nibble::nn {
namespace {

constexpr std::int64_t kHidden = 4;

struct Context {
  ThreadPool pool{2};
  Arena arena;
  Exec exec{Target::cpu, pool, arena, DType::f32};
};

Linear linear(const std::vector<float>& values, std::int64_t outputs) {
  const auto inputs = static_cast<std::int64_t>(values.size()) / outputs;
  Tensor weight({outputs, inputs}, DType::f32);
  std::copy(values.begin(), values.end(), weight.as<float>().begin());
  Linear made;
  made.weight = dense::make(weight, weight.owner());
  return made;
}

Linear diagonal(float value) {
  std::vector<float> values(kHidden * kHidden);
  for (std::size_t i = 0; i < kHidden; ++i) values[i * kHidden + i] = value;
  return linear(values, kHidden);
}

/// Expert e multiplies by 10^e; its score is input e.
Moe powers_of_ten(std::int64_t top_k) {
  Moe moe;
  moe.router = diagonal(1);
  moe.top_k = top_k;
  float factor = 1;
  for (std::int64_t e = 0; e < kHidden; ++e, factor *= 10) {
    Mlp& expert = moe.experts.emplace_back();
    expert.activation = Activation::identity;
    expert.up = diagonal(factor);
    expert.down = diagonal(1);
  }
  return moe;
}

std::vector<float> run(const Moe& moe, const std::vector<float>& x) {
  Context c;
  std::vector<float> y(x.size());
  moe.forward(x.data(), static_cast<std::int64_t>(x.size()) / kHidden, y.data(), c.exec);
  return y;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], expected[i], 1e-5 * std::abs(expected[i]) + 1e-6) << i;
}

TEST(Moe, OneExpertPerTokenGetsAllTheWeight) {
  expect_near(run(powers_of_ten(1), {3, 1, 2, 0, 1, 2, 3, 4}), {3, 1, 2, 0, 1000, 2000, 3000, 4000});
}

TEST(Moe, WeightsAreTheSoftmaxOfTheHighestScores) {
  const float high = 1 / (1 + std::exp(-1.0F)), low = 1 - high;  // scores 3 and 2
  const float factor = high * 1 + low * 100;
  expect_near(run(powers_of_ten(2), {3, 1, 2, 0}), {3 * factor, factor, 2 * factor, 0});
}

TEST(Moe, TheLowerNumberWinsATie) {
  expect_near(run(powers_of_ten(2), {0, 1, 1, 1}), {0, 55, 55, 55});
  expect_near(run(powers_of_ten(1), {0, 0, 0, 0}), {0, 0, 0, 0});
}

TEST(Moe, ATokensResultDoesNotDependOnTheOthers) {
  const std::vector<float> a{3, 1, 2, 0}, b{-1, -2, 5, 4}, c{0, 9, 8, 0};
  std::vector<float> all(a), each;
  all.insert(all.end(), b.begin(), b.end());
  all.insert(all.end(), c.begin(), c.end());
  for (const std::vector<float>& x : {a, b, c}) {
    const std::vector<float> y = run(powers_of_ten(2), x);
    each.insert(each.end(), y.begin(), y.end());
  }
  expect_near(run(powers_of_ten(2), all), each);
}

TEST(Moe, ScoresOfAnySizeGiveAResult) {
  // A second choice that is hopelessly far behind has no weight; NaN stays in its token.
  expect_near(run(powers_of_ten(2), {1e30F, 0, -1e30F, 0}), {1e30F, 0, -1e30F, 0});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> y = run(powers_of_ten(2), {nan, 1, 2, 3, 3, 1, 2, 0});
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[4], run(powers_of_ten(2), {3, 1, 2, 0})[0]);
}

}  // namespace
}  // namespace nibble::nn
