#include "quant/common/allocate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace nibble {
namespace {

using Parts = std::vector<std::vector<SizeChoice>>;

struct Sum {
  std::int64_t bytes = 0;
  double cost = 0;
};

Sum sum_of(const Parts& parts, const std::vector<std::size_t>& chosen) {
  Sum sum;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    sum.bytes += parts[p][chosen[p]].bytes;
    sum.cost += parts[p][chosen[p]].cost;
  }
  return sum;
}

/// Weights of a few sizes at 2, 3, 4 and 8 bits, whose costs fall about as those of rounding do.
Parts some_parts(std::size_t count, std::uint64_t seed, std::int64_t unit) {
  Rng rng(seed);
  Parts parts;
  for (std::size_t p = 0; p < count; ++p) {
    const std::int64_t size = unit * static_cast<std::int64_t>(1 + rng.next() % 3);
    const double weight = std::exp(2 * rng.normal());
    parts.emplace_back();
    for (const int bits : {2, 3, 4, 8}) parts.back().push_back({size * bits, weight * std::pow(4.5, -bits)});
  }
  return parts;
}

TEST(Allocate, IsTheBestOfAllThatFit) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Parts parts = some_parts(6, seed, 96);
    for (const double bits : {2.0, 2.3, 3.0, 3.7, 5.0, 8.0, 9.0}) {
      std::int64_t weights = 0;
      for (const auto& part : parts) weights += part.front().bytes / 2;
      const auto budget = static_cast<std::int64_t>(bits * static_cast<double>(weights));
      double best = INFINITY;
      for (int all = 0; all < 4096; ++all) {
        std::vector<std::size_t> chosen;
        for (int p = 0; p < 6; ++p) chosen.push_back(static_cast<std::size_t>(all >> 2 * p & 3));
        const Sum sum = sum_of(parts, chosen);
        if (sum.bytes <= budget) best = std::min(best, sum.cost);
      }
      const std::vector<std::size_t> chosen = allocate(parts, budget);
      ASSERT_EQ(chosen.size(), parts.size());
      EXPECT_LE(sum_of(parts, chosen).bytes, budget);
      EXPECT_NEAR(sum_of(parts, chosen).cost, best, 1e-12);
    }
  }
}

TEST(Allocate, NeverExceedsTheBudgetAndMoreOfItIsNeverWorse) {
  // Sizes of 7B models with nothing in common, so that steps are rounded.
  Parts parts = some_parts(300, 7, 5'636'096);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    for (SizeChoice& choice : parts[p]) choice.bytes += static_cast<std::int64_t>(p * 13 % 101);
  }
  std::int64_t smallest = 0;
  for (const auto& part : parts) smallest += part.front().bytes;
  double before = INFINITY;
  for (const double times : {1.0, 1.05, 1.3, 1.5, 2.0, 3.9, 4.5}) {
    const auto budget = static_cast<std::int64_t>(times * static_cast<double>(smallest));
    const Sum sum = sum_of(parts, allocate(parts, budget));
    EXPECT_LE(sum.bytes, budget);
    EXPECT_LE(sum.cost, before) << times;
    before = sum.cost;
  }
  EXPECT_TRUE(allocate(parts, smallest - 1).empty());
}

TEST(Allocate, TiesGoToTheSmaller) {
  const Parts same{{{8, 1}, {4, 1}, {6, 1}}, {{4, 1}, {4, 2}}};
  EXPECT_EQ(allocate(same, 100), (std::vector<std::size_t>{1, 0}));
  EXPECT_TRUE(allocate({}, 0).empty());
}

}  // namespace
}  // namespace nibble
