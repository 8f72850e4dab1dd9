// Refining moves every code, scale and zero point to where no single move lowers the loss, and never raises it.
#include "quant/common/grid_refiner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/common/gptq_solver.h"
#include "support/scheme_checks.h"

namespace nibble {
namespace {

using test::QuantMachine;

struct Problem {
  std::int64_t rows, cols;
  std::vector<float> weight, gram;
};

/// Weights and the matrix of inputs that are correlated, as those of models are.
Problem problem(std::int64_t rows, std::int64_t cols, std::int64_t tokens) {
  Problem out{rows, cols, {}, {}};
  std::uint32_t state = 12345;
  const auto next = [&] {
    state = state * 1664525U + 1013904223U;
    return static_cast<float>(state >> 8) / 8388608.0F - 1;
  };
  for (std::int64_t i = 0; i < rows * cols; ++i) out.weight.push_back(next());
  std::vector<double> sums(static_cast<std::size_t>(cols * cols));
  std::vector<double> x(static_cast<std::size_t>(cols));
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double common = static_cast<double>(next());
    for (std::int64_t k = 0; k < cols; ++k) {
      x[static_cast<std::size_t>(k)] = (static_cast<double>(next()) + common) * (k % 7 == 0 ? 4 : 1);
    }
    for (std::int64_t i = 0; i < cols * cols; ++i) {
      sums[static_cast<std::size_t>(i)] +=
          x[static_cast<std::size_t>(i / cols)] * x[static_cast<std::size_t>(i % cols)];
    }
  }
  for (const double sum : sums) out.gram.push_back(static_cast<float>(2 * sum / static_cast<double>(tokens)));
  return out;
}

/// (w - q) G (w - q)' over all rows, with `damp` of the mean diagonal on the diagonal.
double loss_of(const Problem& p, const GridCodes& grid, double damp) {
  double mean = 0, sum = 0;
  for (std::int64_t k = 0; k < p.cols; ++k)
    mean += static_cast<double>(p.gram[static_cast<std::size_t>(k * (p.cols + 1))]);
  mean /= static_cast<double>(p.cols);
  std::vector<double> e(static_cast<std::size_t>(p.cols));
  for (std::int64_t r = 0; r < p.rows; ++r) {
    for (std::int64_t k = 0; k < p.cols; ++k) {
      const std::int64_t at = r * grid.groups + grid.g_idx[static_cast<std::size_t>(k)], i = r * p.cols + k;
      const float value =
          grid.scale[static_cast<std::size_t>(at)] *
          (static_cast<float>(grid.codes[static_cast<std::size_t>(i)]) - grid.zero[static_cast<std::size_t>(at)]);
      e[static_cast<std::size_t>(k)] = static_cast<double>(p.weight[static_cast<std::size_t>(i)] - value);
    }
    for (std::int64_t i = 0; i < p.cols; ++i) {
      for (std::int64_t k = 0; k < p.cols; ++k) {
        const double g =
            static_cast<double>(p.gram[static_cast<std::size_t>(i * p.cols + k)]) + (i == k ? damp * mean : 0);
        sum += g * e[static_cast<std::size_t>(i)] * e[static_cast<std::size_t>(k)];
      }
    }
  }
  return sum;
}

TEST(GridRefiner, LowersTheLossItReportsOnEveryGrid) {
  QuantMachine machine(Target::cpu, 2);
  for (const std::int32_t bits : {2, 3, 4, 8}) {
    for (const bool sym : {true, false}) {
      for (const bool desc_act : {true, false}) {
        const Problem p = problem(21, 96, 200);
        GptqOptions options{.bits = bits, .group = 32, .sym = sym, .desc_act = desc_act};
        GridCodes grid = gptq_quantize(p.weight, p.rows, p.gram, options, machine.exec);
        const double start = loss_of(p, grid, 0.01);
        const RefineLoss loss =
            refine_grid(p.weight, p.rows, p.gram, {.bits = bits, .passes = 3, .move_zeros = !sym}, grid, machine.exec);
        EXPECT_NEAR(loss.before, start, 0.02 * start) << "scales are rounded to f16 first";
        EXPECT_NEAR(loss.after, loss_of(p, grid, 0.01), 1e-3 * loss.after);
        EXPECT_LE(loss.after, loss.before) << bits << sym << desc_act;
        if (bits <= 3) {
          EXPECT_LT(loss.after, 0.97 * loss.before) << bits << sym << desc_act;
        }
        for (const float scale : grid.scale) EXPECT_EQ(scale, round_to(DType::f16, scale));
        for (const float zero : grid.zero) {
          EXPECT_EQ(zero, std::nearbyint(zero));
          EXPECT_TRUE(zero >= 0 && zero < static_cast<float>(1 << bits));
        }
      }
    }
  }
}

TEST(GridRefiner, EndsWhereNoSingleCodeHelps) {
  const Problem p = problem(3, 32, 64);
  QuantMachine machine;
  GridCodes grid = round_to_nearest(p.weight, p.rows, {.bits = 2, .group = 16, .sym = false}, machine.exec);
  refine_grid(p.weight, p.rows, p.gram, {.bits = 2, .passes = 50}, grid, machine.exec);
  const double least = loss_of(p, grid, 0.01);
  for (std::uint8_t& code : grid.codes) {
    const std::uint8_t kept = code;
    for (std::uint8_t other = 0; other < 4; ++other) {
      code = other;
      EXPECT_GE(loss_of(p, grid, 0.01), least * (1 - 1e-5));
    }
    code = kept;
  }
}

TEST(GridRefiner, ThreadsDoNotMatterAndDeadInputsStay) {
  Problem p = problem(40, 64, 100);
  for (std::int64_t k = 0; k < 64; ++k)
    p.gram[static_cast<std::size_t>(5 * 64 + k)] = p.gram[static_cast<std::size_t>(k * 64 + 5)] = 0;
  QuantMachine one(Target::cpu, 1), two(Target::cpu, 2);
  const GridCodes start = round_to_nearest(p.weight, p.rows, {.bits = 3, .group = 32, .sym = false}, one.exec);
  GridCodes a = start, b = start;
  refine_grid(p.weight, p.rows, p.gram, {.bits = 3, .damp = 0}, a, one.exec);
  refine_grid(p.weight, p.rows, p.gram, {.bits = 3, .damp = 0}, b, two.exec);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scale, b.scale);
  EXPECT_EQ(a.zero, b.zero);
  for (std::int64_t r = 0; r < p.rows; ++r) {
    EXPECT_EQ(a.codes[static_cast<std::size_t>(r * 64 + 5)], start.codes[static_cast<std::size_t>(r * 64 + 5)]);
  }
  const std::vector<float> nothing(p.gram.size());
  GridCodes c = start;
  const RefineLoss loss = refine_grid(p.weight, p.rows, nothing, {.bits = 3}, c, one.exec);
  EXPECT_EQ(loss.after, 0);
  EXPECT_EQ(c.codes, start.codes);
}

/// With the unit matrix no input can make up for another: GPTQ's codes are the nearest.
TEST(RoundToNearest, IsGptqWithoutCorrelations) {
  const Problem p = problem(16, 64, 10);
  std::vector<float> unit(static_cast<std::size_t>(p.cols * p.cols));
  for (std::int64_t k = 0; k < p.cols; ++k) unit[static_cast<std::size_t>(k * (p.cols + 1))] = 1;
  QuantMachine machine;
  for (const std::int64_t group : {std::int64_t{16}, std::int64_t{-1}}) {
    for (const double mse : {0.0, 2.4}) {
      const GptqOptions options{.bits = 3, .group = group, .sym = false, .mse_norm = mse};
      const GptqResult nearest = round_to_nearest(p.weight, p.rows, options, machine.exec);
      const GptqResult gptq = gptq_quantize(p.weight, p.rows, unit, options, machine.exec);
      EXPECT_EQ(nearest.codes, gptq.codes);
      EXPECT_EQ(nearest.scale, gptq.scale);
      EXPECT_EQ(nearest.g_idx, gptq.g_idx);
      EXPECT_FALSE(nearest.rounded);
    }
  }
}

}  // namespace
}  // namespace nibble
