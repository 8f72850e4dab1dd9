#include "run/rotation/random_hadamard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace nibble {
namespace {

/// R [n, n] as its columns: apply() of the unit matrix, all columns at once.
std::vector<double> matrix_of(const RandomHadamard& rotation) {
  const std::int64_t n = rotation.size();
  std::vector<double> x(static_cast<std::size_t>(n * n)), scratch(static_cast<std::size_t>(rotation.scratch_size(n)));
  for (std::int64_t i = 0; i < n; ++i) x[static_cast<std::size_t>(i * n + i)] = 1;
  rotation.apply(x.data(), n, scratch.data());
  return x;
}

TEST(RandomHadamard, IsOrthogonalForEverySize) {
  for (const std::int64_t n : {1, 2, 3, 64, 96, 192, 512, 100, 127}) {
    const std::vector<double> r = matrix_of(RandomHadamard(n, 7));
    double worst = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (std::int64_t k = 0; k < n; ++k) {
          sum += r[static_cast<std::size_t>(i * n + k)] * r[static_cast<std::size_t>(j * n + k)];
        }
        worst = std::max(worst, std::abs(sum - (i == j ? 1 : 0)));
      }
    }
    EXPECT_LT(worst, 1e-13) << n;
  }
}

TEST(RandomHadamard, SpreadsEveryValueEvenlyForPowersOfTwo) {
  for (const double value : matrix_of(RandomHadamard(256, 3))) EXPECT_EQ(std::abs(value), 1.0 / 16);
}

TEST(RandomHadamard, AppliesToAVectorAsToAColumn) {
  for (const std::int64_t n : {64, 96, 35}) {
    const RandomHadamard rotation(n, 1);
    const std::vector<double> r = matrix_of(rotation);
    std::vector<double> x, expected, scratch(static_cast<std::size_t>(rotation.scratch_size(1)));
    for (std::int64_t i = 0; i < n; ++i) x.push_back(std::sin(static_cast<double>(i)));
    for (std::int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < n; ++k)
        sum += r[static_cast<std::size_t>(i * n + k)] * x[static_cast<std::size_t>(k)];
      expected.push_back(sum);
    }
    rotation.apply(x.data(), 1, scratch.data());
    for (std::int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(x[static_cast<std::size_t>(i)], expected[static_cast<std::size_t>(i)], 1e-13);
    }
  }
}

TEST(RandomHadamard, FollowsFromItsSeed) {
  EXPECT_EQ(matrix_of(RandomHadamard(96, 5)), matrix_of(RandomHadamard(96, 5)));
  EXPECT_NE(matrix_of(RandomHadamard(96, 5)), matrix_of(RandomHadamard(96, 6)));
}

}  // namespace
}  // namespace nibble
