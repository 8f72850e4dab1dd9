// AWQ (Lin et al. 2023, arXiv:2306.00978): columns of a weight whose inputs are large are made larger before rounding,
// so that they lose less, and what comes in is made smaller by the same factors; then ranges of groups are clipped
// where that lowers the error of the outputs. The arithmetic of AutoAWQ, in f32; errors of outputs come from the
// inputs' Gram matrix instead of forward passes. See quant/awq/README.md.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "device/device.h"
#include "quant/common/grid_codes.h"

namespace nibble {

struct AwqOptions {
  std::int64_t group = 128;  ///< inputs with one scale, a divisor of their number; -1: all
  bool duo = true;           ///< scales also look at the weights: x^r / w^(1-r) instead of x^r
  bool clip = true;          ///< search for ranges of groups
  std::int64_t inputs_per_group(std::int64_t cols) const { return group == -1 ? cols : group; }
};

/// What operations are rounded to: f32 is nibble's, f16 gives AutoAWQ's bits on a float16 model (awq_grid.h).
enum class AwqArithmetic : std::uint8_t { f32, f16 };

/// A weight [rows, cols], finite f32.
struct AwqWeight {
  const float* values = nullptr;
  std::int64_t rows = 0;
};

/// [cols]: the mean over all rows of |w| / max |w| of its group.
std::vector<float> awq_weight_mean(std::span<const AwqWeight> weights, std::int64_t cols, std::int64_t group,
                                   AwqArithmetic arithmetic, ThreadPool& pool);

/// The candidate of one ratio (0 to 1): x_mean^ratio / (w_mean^(1 - ratio) + 1e-4) without `duo` x_mean^ratio, divided
/// by the geometric mean of its extremes. Both arguments [cols], not negative. With f32, inputs that were always zero
/// get 1 and do not count as extremes; with f16, as in AutoAWQ, what is not finite becomes 1.
std::vector<float> awq_scales(std::span<const float> x_mean, std::span<const float> w_mean, double ratio, bool duo,
                              AwqArithmetic arithmetic);

/// sum over the rows d of a matrix of d G d', for a symmetric matrix G of which the lower triangle counts twice.
class GramForm {
 public:
  /// `lower` [cols, cols]: the lower triangle is read, times `factor`.
  GramForm(std::span<const double> lower, std::int64_t cols, double factor, ThreadPool& pool);
  std::int64_t cols() const { return cols_; }
  /// `d` [rows, cols]. The same bits for any number of threads.
  double of(const float* d, std::int64_t rows, Exec& exec) const;

 private:
  std::int64_t cols_;
  std::vector<float> strips_;  ///< for each strip of rows of G: its columns up to the diagonal block's end
};

/// sum of squares of what rounding changes in the outputs of `weight`, when columns are multiplied by `scales` [cols]
/// before it and divided after it. `form` is the Gram matrix of the inputs times any constant, and so is the result.
/// Only every `step`-th row is looked at.
double awq_rounding_loss(AwqWeight weight, std::span<const float> scales, std::int64_t group, const GramForm& form,
                         Exec& exec, std::int64_t step = 1);

/// The columns of `weight` [rows, cols] as they are after rounding, in their own size: round(w * s) / s.
std::vector<float> awq_rounded(AwqWeight weight, std::span<const float> scales, std::int64_t group, ThreadPool& pool);

struct AwqScales {
  std::vector<float> scales;  ///< [cols], positive
  double ratio = -1;          ///< -1: none was better than plain rounding, all scales are 1
  double loss = 0, plain_loss = 0;
};

using AwqLossFunction = std::function<double(std::span<const float> scales)>;

/// The best of plain rounding and the ratios 0, 1/20, ... 19/20 by `loss`; of equal ones the first. With `estimate`,
/// which should be cheaper and order ratios much as `loss` does, only the three best by it are looked at.
AwqScales awq_search(std::span<const float> x_mean, std::span<const float> w_mean, bool duo,
                     const AwqLossFunction& loss, const AwqLossFunction& estimate = {});

/// The blocks on the diagonal [groups, group, group] of the Gram matrix of inputs that are divided by `scales`; `lower`
/// and `factor` as in GramForm.
std::vector<float> awq_group_grams(std::span<const double> lower, std::int64_t cols, std::int64_t group, double factor,
                                   std::span<const float> scales);

/// The bound of |w| for every group of every row [rows, groups]: the best of 1, 19/20, ... 11/20 times the largest by
/// the error of the group's part of the outputs; of equal ones the largest. `group_grams` as above; the same result for
/// any number of threads.
std::vector<float> awq_clip(AwqWeight weight, std::int64_t cols, std::int64_t group, std::span<const float> group_grams,
                            Exec& exec);

/// Rounds to nearest: codes and zero points are 0 to 15, scales f16 values, infinite where f16 has none. `clip` [rows,
/// groups] bounds |w| before; empty: no bounds.
GridCodes awq_round(AwqWeight weight, std::int64_t cols, std::int64_t group, std::span<const float> clip,
                    AwqArithmetic arithmetic, ThreadPool& pool);

}  // namespace nibble
