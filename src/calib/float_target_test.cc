// The weight that takes over what earlier blocks lost is the least-squares one.
#include "calib/float_target.h"

#include <gtest/gtest.h>

#include <cmath>

#include "calib/gram.h"
#include "support/scheme_checks.h"

namespace nibble {
namespace {

using test::QuantMachine;

std::vector<float> noise(std::int64_t count, std::uint32_t state) {
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    out.push_back(static_cast<float>(state >> 8) / 8388608.0F - 1);
  }
  return out;
}

/// a' b for a, b [tokens, cols], times 2 / tokens.
std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, std::int64_t cols) {
  const std::int64_t tokens = static_cast<std::int64_t>(a.size()) / cols;
  std::vector<float> out;
  for (std::int64_t i = 0; i < cols; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        sum += static_cast<double>(a[static_cast<std::size_t>(t * cols + i)]) *
               static_cast<double>(b[static_cast<std::size_t>(t * cols + j)]);
      }
      out.push_back(static_cast<float>(2 * sum / static_cast<double>(tokens)));
    }
  }
  return out;
}

/// Sum of (w f - v x)^2 over tokens and rows.
double distance(const std::vector<float>& w, const std::vector<float>& f, const std::vector<float>& v,
                const std::vector<float>& x, std::int64_t rows, std::int64_t cols) {
  double sum = 0;
  for (std::int64_t t = 0; t < static_cast<std::int64_t>(f.size()) / cols; ++t) {
    for (std::int64_t r = 0; r < rows; ++r) {
      double off = 0;
      for (std::int64_t k = 0; k < cols; ++k) {
        const auto at = static_cast<std::size_t>(t * cols + k), i = static_cast<std::size_t>(r * cols + k);
        off += static_cast<double>(w[i]) * static_cast<double>(f[at]) -
               static_cast<double>(v[i]) * static_cast<double>(x[at]);
      }
      sum += off * off;
    }
  }
  return sum;
}

TEST(FloatTarget, IsTheLeastSquaresWeight) {
  const std::int64_t rows = 5, cols = 24, tokens = 100;
  const std::vector<float> w = noise(rows * cols, 1), f = noise(tokens * cols, 2), other = noise(tokens * cols, 3);
  std::vector<float> x = f;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.8F * f[i] + 0.3F * other[i];
  QuantMachine one(Target::cpu, 1), two(Target::cpu, 2);
  const std::vector<float> cross = product(f, x, cols), gram = product(x, x, cols);
  std::vector<float> best = float_target(w, rows, cross, gram, 0, 1, one.exec);
  EXPECT_EQ(best, float_target(w, rows, cross, gram, 0, 1, two.exec));
  const double least = distance(w, f, best, x, rows, cols);
  EXPECT_LT(least, 0.8 * distance(w, f, w, x, rows, cols));
  for (const std::size_t i : {0U, 7U, 50U, 119U}) {
    for (const float step : {-0.01F, 0.01F}) {
      best[i] += step;
      EXPECT_GT(distance(w, f, best, x, rows, cols), least) << i;
      best[i] -= step;
    }
  }
  const std::vector<float> half = float_target(w, rows, cross, gram, 0, 0.5, one.exec);
  for (std::size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(half[i], (w[i] + best[i]) / 2, 1e-5);
}

TEST(FloatTarget, EqualInputsChangeNothing) {
  const std::int64_t rows = 3, cols = 40;
  const std::vector<float> w = noise(rows * cols, 1), f = noise(20 * cols, 2), gram = product(f, f, cols);  // singular
  QuantMachine machine;
  const std::vector<float> same = float_target(w, rows, gram, gram, 0.01, 1, machine.exec);
  for (std::size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(same[i], w[i], 2e-3);
  const std::vector<float> nothing(gram.size());
  EXPECT_EQ(float_target(w, rows, nothing, nothing, 0.01, 1, machine.exec), w);
}

TEST(CrossStatistics, SumsSequencesAndSharesInputs) {
  QuantMachine machine;
  CrossStatistics cross({"q", "k", "expert", "lost"}, nullptr, machine.exec);
  const std::int64_t cols = 3;
  std::vector<float> f, x, all_f, all_x;
  const auto show = [&](Tap& tap, const std::vector<float>& values) {
    for (const char* name : {"q", "k", "unknown"}) tap.linear_input(name, values.data(), 600, cols);
  };
  for (std::uint32_t sequence = 0; sequence < 2; ++sequence) {
    f = noise(600 * cols, sequence + 10);
    x = noise(600 * cols, sequence + 20);
    all_f.insert(all_f.end(), f.begin(), f.end());
    all_x.insert(all_x.end(), x.begin(), x.end());
    show(cross.float_tap(), f);  // a pass ends here: no output is told
    cross.float_tap().linear_input("expert", f.data() + 1, 5, cols);
    cross.float_tap().linear_input("lost", f.data() + 2, 5, cols);
    show(cross.quantized_tap(), x);
    cross.quantized_tap().linear_input("expert", x.data() + 1, 4, cols);
  }
  const std::vector<float> expected = product(all_f, all_x, cols), q = cross.matrix("q", 2.0 / 1200);
  ASSERT_EQ(q.size(), expected.size());
  for (std::size_t i = 0; i < q.size(); ++i) EXPECT_NEAR(q[i], expected[i], 1e-5);
  EXPECT_EQ(cross.matrix("k", 2.0 / 1200), q);
  EXPECT_TRUE(cross.matrix("expert", 1).empty()) << "another number of tokens";
  EXPECT_TRUE(cross.matrix("lost", 1).empty());
  EXPECT_TRUE(cross.matrix("unknown", 1).empty());
}

/// Linears of different inputs that lie in one place, and passes that end as soon as the last has seen its own.
TEST(CrossStatistics, KeepsInputsInOnePlaceApart) {
  QuantMachine machine;
  CrossStatistics cross({"q", "k", "o"}, nullptr, machine.exec);
  StatisticsCollector own({"q", "k", "o"}, machine.exec);
  float x[2];
  const auto pass = [&](Tap& tap, float q, float o) {
    std::fill_n(x, 2, q);
    for (const char* name : {"q", "k"}) tap.linear_input(name, x, 1, 2);
    for (const char* name : {"q", "k"}) tap.linear_output(name, x, 1, 2);
    std::fill_n(x, 2, o);
    tap.linear_input("o", x, 1, 2);
  };
  for (int sequence = 0; sequence < 3; ++sequence) {
    pass(cross.float_tap(), 1, 10);
    pass(cross.quantized_tap(), 2, 20);
    pass(own, 2, 20);
  }
  EXPECT_EQ(cross.matrix("q", 1), std::vector<float>(4, 3 * 1 * 2));
  EXPECT_EQ(cross.matrix("k", 1), cross.matrix("q", 1));
  EXPECT_EQ(cross.matrix("o", 1), std::vector<float>(4, 3 * 10 * 20));
  EXPECT_EQ(own.find("q"), own.find("k"));
  EXPECT_EQ(own.find("q")->abs_sum, std::vector<double>(2, 3 * 2));
  EXPECT_EQ(own.find("o")->abs_sum, std::vector<double>(2, 3 * 20));
}

}  // namespace
}  // namespace nibble
