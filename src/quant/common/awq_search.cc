#include "quant/common/awq_search.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "quant/common/awq_grid.h"
#include "quant/common/inverse_factor.h"

namespace nibble {
namespace {

/// Rows of a weight worked on at once, and rows of the Gram matrix in one product.
constexpr std::int64_t kRows = 512, kStrip = 256;
/// Ratios, and shares of a group's range from 1 down in steps of 1/20.
constexpr int kRatios = 20, kShares = 10, kFinalists = 3;

template <class F>
decltype(auto) with_arithmetic(AwqArithmetic arithmetic, F&& f) {
  return arithmetic == AwqArithmetic::f16 ? f(AwqF16{}) : f(AwqF32{});
}

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

/// x . y in a fixed order, in lanes that compilers turn into vectors.
double dot(const float* x, const float* y, std::int64_t count) {
  constexpr std::int64_t kLanes = 16, kRun = 256;
  double total = 0;
  for (std::int64_t begin = 0; begin < count; begin += kRun) {
    const std::int64_t end = std::min(count, begin + kRun);
    std::array<float, kLanes> sums{};
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::int64_t l = 0; l < kLanes; ++l) sums[at(l)] += x[i + l] * y[i + l];
    }
    for (; i < end; ++i) sums[0] += x[i] * y[i];
    for (const float sum : sums) total += static_cast<double>(sum);
  }
  return total;
}

/// Values of `row` [cols] after rounding, columns multiplied by `scales` before and divided after.
template <class A>
void round_row(const float* row, const float* scales, std::int64_t cols, std::int64_t group, float* out) {
  for (std::int64_t begin = 0; begin < cols; begin += group) {
    const float *w = row + begin, *s = scales + begin;
    float* to = out + begin;
    for (std::int64_t k = 0; k < group; ++k) to[k] = A::round(w[k] * s[k]);
    const AwqGrid grid = awq_grid<A>(awq_range(to, group));
    for (std::int64_t k = 0; k < group; ++k) to[k] = A::round(awq_value<A>(awq_code<A>(to[k], grid), grid) / s[k]);
  }
}

/// Mean of the rows of |w| / max |w| for the groups [first, last).
template <class A>
void add_weight_mean(std::span<const AwqWeight> weights, std::int64_t cols, std::int64_t group, std::int64_t first,
                     std::int64_t last, float* out) {
  std::int64_t rows = 0;
  std::vector<double> sums(at((last - first) * group));
  for (const AwqWeight& weight : weights) {
    rows += weight.rows;
    for (std::int64_t r = 0; r < weight.rows; ++r) {
      for (std::int64_t g = first; g < last; ++g) {
        const float* w = weight.values + r * cols + g * group;
        double* to = sums.data() + (g - first) * group;
        const AwqRange range = awq_range(w, group);
        const float largest = A::round(std::max(-range.low, range.high) + A::round(1e-6F));
        for (std::int64_t k = 0; k < group; ++k) to[k] += static_cast<double>(A::round(std::fabs(w[k]) / largest));
      }
    }
  }
  for (std::size_t k = 0; k < sums.size(); ++k)
    out[at(first * group) + k] = A::round(static_cast<float>(sums[k] / static_cast<double>(rows)));
}

/// Rows whose clipped groups, in every share, are held at once: a few MB.
std::int64_t clip_rows(std::int64_t group) {
  return std::clamp<std::int64_t>((std::int64_t{1} << 20) / (kShares * group), 16, kRows);
}

/// Bounds of one group of several rows.
class ClipSearch {
 public:
  ClipSearch(std::int64_t cols, std::int64_t group, Exec& exec) : cols_(cols), group_(group), exec_(exec) {}

  void run(const float* w, std::int64_t rows, const float* gram, float* bounds, std::int64_t stride) {
    error_.resize(at(rows * kShares * group_));
    product_.resize(error_.size());
    exec_.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (int i = 0; i < kShares; ++i) round_clipped(w + r * cols_, i, error_.data() + (r * kShares + i) * group_);
      }
    });
    product_transposed({error_.data(), rows * kShares, group_, gram, group_, group_, product_.data(), group_}, exec_);
    exec_.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) bounds[r * stride] = best(w + r * cols_, r);
    });
  }

 private:
  float bound(const float* w, int i) const {
    const AwqRange range = awq_range(w, group_);
    return std::max(-range.low, range.high) * (1 - static_cast<float>(i) / 20);
  }

  void round_clipped(const float* w, int i, float* error) const {
    const float limit = bound(w, i);
    for (std::int64_t k = 0; k < group_; ++k) error[k] = std::clamp(w[k], -limit, limit);
    const AwqGrid grid = awq_grid<AwqF32>(awq_range(error, group_));
    for (std::int64_t k = 0; k < group_; ++k)
      error[k] = awq_value<AwqF32>(awq_code<AwqF32>(error[k], grid), grid) - w[k];
  }

  float best(const float* w, std::int64_t row) const {
    int chosen = 0;
    double smallest = 0;
    for (int i = 0; i < kShares; ++i) {
      const std::int64_t from = (row * kShares + i) * group_;
      const double error = dot(error_.data() + from, product_.data() + from, group_);
      if (i == 0 || error < smallest) {
        chosen = i;
        smallest = error;
      }
    }
    return bound(w, chosen);
  }

  std::int64_t cols_, group_;
  Exec& exec_;
  std::vector<float> error_, product_;  ///< [rows, shares, group]
};

}  // namespace

std::vector<float> awq_weight_mean(std::span<const AwqWeight> weights, std::int64_t cols, std::int64_t group,
                                   AwqArithmetic arithmetic, ThreadPool& pool) {
  check(cols % group == 0, "awq_weight_mean: groups");
  std::vector<float> out(at(cols));
  pool.run(cols / group, 1, [&](std::int64_t first, std::int64_t last, int) {
    with_arithmetic(arithmetic,
                    [&](auto a) { add_weight_mean<decltype(a)>(weights, cols, group, first, last, out.data()); });
  });
  return out;
}

std::vector<float> awq_scales(std::span<const float> x_mean, std::span<const float> w_mean, double ratio, bool duo,
                              AwqArithmetic arithmetic) {
  check(x_mean.size() == w_mean.size(), "awq_scales: sizes");
  return with_arithmetic(arithmetic, [&](auto a) {
    using A = decltype(a);
    // PyTorch rounds the exponent, too, to the type of the tensor.
    const auto power = [](float base, double exponent) {
      return A::round(std::pow(base, A::round(static_cast<float>(exponent))));
    };
    const float least = A::round(1e-4F);
    std::vector<float> scales(x_mean.size());
    float low = INFINITY, high = 0;
    for (std::size_t k = 0; k < scales.size(); ++k) {
      float s = power(x_mean[k], ratio);
      if (duo) s = A::round(s / A::round(power(w_mean[k], 1 - ratio) + least));
      scales[k] = std::max(s, least);
      if (A::has_zero && x_mean[k] == 0) continue;
      low = std::min(low, scales[k]);
      high = std::max(high, scales[k]);
    }
    const float middle = A::round(std::sqrt(A::round(high * low)));
    for (std::size_t k = 0; k < scales.size(); ++k) {
      const float s = A::round(scales[k] / middle);
      scales[k] = !std::isfinite(s) || (A::has_zero && (x_mean[k] == 0 || s == 0)) ? 1 : s;
    }
    return scales;
  });
}

GramForm::GramForm(std::span<const double> lower, std::int64_t cols, double factor, ThreadPool& pool) : cols_(cols) {
  check(static_cast<std::int64_t>(lower.size()) == cols * cols, "GramForm: size");
  std::int64_t size = 0;
  for (std::int64_t top = 0; top < cols; top += kStrip) {
    const std::int64_t rows = std::min(kStrip, cols - top);
    size += rows * (top + rows);
  }
  strips_.resize(at(size));
  std::int64_t begin = 0;
  for (std::int64_t top = 0; top < cols; top += kStrip) {
    const std::int64_t rows = std::min(kStrip, cols - top), width = top + rows;
    pool.run(rows, 1, [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t i = first; i < last; ++i) {
        float* to = strips_.data() + begin + i * width;
        for (std::int64_t j = 0; j < width; ++j) {
          // Blocks beside the diagonal stand for those on its other side, too.
          const std::int64_t row = std::max(top + i, j), col = std::min(top + i, j);
          to[j] = static_cast<float>(lower[at(row * cols + col)] * factor * (j < top ? 2 : 1));
        }
      }
    });
    begin += rows * width;
  }
}

double GramForm::of(const float* d, std::int64_t rows, Exec& exec) const {
  std::vector<double> sums(at(rows));
  std::vector<float> product(at(rows * std::min(kStrip, cols_)));
  const float* strip = strips_.data();
  for (std::int64_t top = 0; top < cols_; top += kStrip) {
    const std::int64_t height = std::min(kStrip, cols_ - top), width = top + height;
    product_transposed({d, rows, cols_, strip, height, width, product.data(), height}, exec);
    exec.pool.run(rows, 16, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r)
        sums[at(r)] += dot(product.data() + r * height, d + r * cols_ + top, height);
    });
    strip += height * width;
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

double awq_rounding_loss(AwqWeight weight, std::span<const float> scales, std::int64_t group, const GramForm& form,
                         Exec& exec, std::int64_t step) {
  const std::int64_t cols = form.cols(), all = (weight.rows + step - 1) / step;
  check(static_cast<std::int64_t>(scales.size()) == cols && cols % group == 0, "awq_rounding_loss: sizes");
  std::vector<float> change(at(std::min(kRows, all) * cols));
  double total = 0;
  for (std::int64_t top = 0; top < all; top += kRows) {
    const std::int64_t rows = std::min(kRows, all - top);
    exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* w = weight.values + (top + r) * step * cols;
        float* to = change.data() + r * cols;
        round_row<AwqF32>(w, scales.data(), cols, group, to);
        for (std::int64_t k = 0; k < cols; ++k) to[k] -= w[k];
      }
    });
    total += form.of(change.data(), rows, exec);
  }
  return total;
}

std::vector<float> awq_rounded(AwqWeight weight, std::span<const float> scales, std::int64_t group, ThreadPool& pool) {
  const auto cols = static_cast<std::int64_t>(scales.size());
  check(cols % group == 0, "awq_rounded: groups");
  std::vector<float> out(at(weight.rows * cols));
  pool.run(weight.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r)
      round_row<AwqF32>(weight.values + r * cols, scales.data(), cols, group, out.data() + r * cols);
  });
  return out;
}

AwqScales awq_search(std::span<const float> x_mean, std::span<const float> w_mean, bool duo,
                     const AwqLossFunction& loss, const AwqLossFunction& estimate) {
  struct Candidate {
    double ratio, estimate;
    std::vector<float> scales;
  };
  std::vector<Candidate> candidates;
  for (int i = 0; i < kRatios; ++i) {
    const double ratio = static_cast<double>(i) / kRatios;
    std::vector<float> scales = awq_scales(x_mean, w_mean, ratio, duo, AwqArithmetic::f32);
    const double guess = estimate ? estimate(scales) : 0;
    candidates.push_back({ratio, guess, std::move(scales)});
  }
  if (estimate) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.estimate < b.estimate; });
    candidates.resize(kFinalists);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.ratio < b.ratio; });
  }
  AwqScales best;
  best.scales.assign(x_mean.size(), 1);
  best.loss = best.plain_loss = loss(best.scales);
  for (Candidate& candidate : candidates) {
    const double found = loss(candidate.scales);
    if (!(found < best.loss)) continue;
    best.loss = found;
    best.ratio = candidate.ratio;
    best.scales = std::move(candidate.scales);
  }
  return best;
}

std::vector<float> awq_group_grams(std::span<const double> lower, std::int64_t cols, std::int64_t group, double factor,
                                   std::span<const float> scales) {
  check(static_cast<std::int64_t>(lower.size()) == cols * cols && cols % group == 0, "awq_group_grams: sizes");
  std::vector<float> out(at(cols * group));
  for (std::int64_t i = 0; i < cols; ++i) {
    const std::int64_t begin = i / group * group;
    for (std::int64_t j = begin; j < begin + group; ++j) {
      const double value = lower[at(std::max(i, j) * cols + std::min(i, j))] * factor;
      out[at(i * group + j - begin)] =
          static_cast<float>(value / static_cast<double>(scales[at(i)]) / static_cast<double>(scales[at(j)]));
    }
  }
  return out;
}

std::vector<float> awq_clip(AwqWeight weight, std::int64_t cols, std::int64_t group, std::span<const float> group_grams,
                            Exec& exec) {
  check(cols % group == 0 && static_cast<std::int64_t>(group_grams.size()) == cols * group, "awq_clip: sizes");
  const std::int64_t groups = cols / group;
  std::vector<float> bounds(at(weight.rows * groups));
  ClipSearch search(cols, group, exec);
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t top = 0; top < weight.rows; top += clip_rows(group)) {
      search.run(weight.values + top * cols + g * group, std::min(clip_rows(group), weight.rows - top),
                 group_grams.data() + g * group * group, bounds.data() + top * groups + g, groups);
    }
  }
  return bounds;
}

GridCodes awq_round(AwqWeight weight, std::int64_t cols, std::int64_t group, std::span<const float> clip,
                    AwqArithmetic arithmetic, ThreadPool& pool) {
  check(cols % group == 0, "awq_round: groups");
  const std::int64_t groups = cols / group;
  GridCodes out;
  out.groups = groups;
  for (std::int64_t k = 0; k < cols; ++k) out.g_idx.push_back(static_cast<std::int32_t>(k / group));
  out.codes.resize(at(weight.rows * cols));
  out.scale.resize(at(weight.rows * groups));
  out.zero.resize(out.scale.size());
  const auto round_group = [&](auto a, std::int64_t index, std::vector<float>& w) {
    using A = decltype(a);
    std::copy_n(weight.values + index * group, group, w.data());
    const float limit = clip.empty() ? INFINITY : clip[at(index)];
    for (float& value : w) value = std::clamp(value, -limit, limit);
    const AwqGrid grid = awq_grid<A>(awq_range(w.data(), group));
    for (std::int64_t k = 0; k < group; ++k)
      out.codes[at(index * group + k)] = static_cast<std::uint8_t>(awq_code<A>(w[at(k)], grid));
    out.scale[at(index)] = grid.scale;
    out.zero[at(index)] = grid.zero;
  };
  pool.run(weight.rows * groups, 1, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> w(at(group));
    for (std::int64_t i = begin; i < end; ++i) with_arithmetic(arithmetic, [&](auto a) { round_group(a, i, w); });
  });
  return out;
}

}  // namespace nibble
