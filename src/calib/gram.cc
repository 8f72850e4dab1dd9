#include "calib/gram.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "quant/common/inverse_factor.h"

namespace nibble {
namespace {

/// Rows of a product that are computed at once.
constexpr std::int64_t kStrip = 512;
/// Channels that are read together: a cache line of floats.
constexpr std::int64_t kLine = 16;

}  // namespace

std::vector<float> InputStatistics::matrix(double factor, ThreadPool& pool) const {
  std::vector<float> out(gram.size());
  pool.run(cols, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const std::int64_t at = i >= j ? i * cols + j : j * cols + i;
        out[static_cast<std::size_t>(i * cols + j)] = static_cast<float>(gram[static_cast<std::size_t>(at)] * factor);
      }
    }
  });
  return out;
}

void add_products(const ProductSums& s, std::vector<float>& scratch, Exec& exec) {
  for (std::int64_t top = 0; top < s.channels; top += kStrip) {
    const std::int64_t rows = std::min(kStrip, s.channels - top), cols = s.lower ? top + rows : s.channels;
    scratch.resize(static_cast<std::size_t>(rows * cols));
    product_transposed({s.a + top * s.tokens, rows, s.tokens, s.b, cols, s.tokens, scratch.data(), cols}, exec);
    exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        double* sums = s.to + (top + i) * s.channels;
        const float* from = scratch.data() + i * cols;
        const std::int64_t wanted = s.lower ? top + i + 1 : cols;
        for (std::int64_t j = 0; j < wanted; ++j) sums[j] += static_cast<double>(from[j]);
      }
    });
  }
}

const InputStatistics* StatisticsCollector::find(std::string_view module) const {
  const std::string* leader = shared_.leader_of(module);
  return leader == nullptr ? nullptr : &of_leader_.at(*leader);
}

void StatisticsCollector::linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) {
  if (!modules_.contains(module)) return;
  const std::string& leader = shared_.input(module, x);
  InputStatistics& to = of_leader_[leader];
  if (to.cols == 0) {
    to.cols = k;
    to.gram.resize(static_cast<std::size_t>(k * k));
    to.abs_sum.resize(static_cast<std::size_t>(k));
    to.abs_max.resize(static_cast<std::size_t>(k));
  }
  check(to.cols == k, "statistics: width of an input");
  if (leader != module) return;  // the leader did the sums
  for (std::int64_t at = 0; at < m; at += kStatisticsTokens) add(to, x + at * k, std::min(kStatisticsTokens, m - at));
}

void StatisticsCollector::add_channels(InputStatistics& to, const float* x, std::int64_t m, std::int64_t first,
                                       std::int64_t count) {
  std::array<double, kLine> sums{};
  float* const largest = to.abs_max.data() + first;
  for (std::int64_t t = 0; t < m; ++t) {
    for (std::int64_t c = 0; c < count; ++c) {
      const float value = x[t * to.cols + first + c], magnitude = std::fabs(value);
      transposed_[static_cast<std::size_t>((first + c) * m + t)] = value;
      sums[static_cast<std::size_t>(c)] += static_cast<double>(magnitude);
      largest[c] = std::max(largest[c], magnitude);
    }
  }
  for (std::int64_t c = 0; c < count; ++c)
    to.abs_sum[static_cast<std::size_t>(first + c)] += sums[static_cast<std::size_t>(c)];
}

void StatisticsCollector::add(InputStatistics& to, const float* x, std::int64_t m) {
  const std::int64_t k = to.cols;
  transposed_.resize(static_cast<std::size_t>(k * m));
  exec_.pool.run(k, kLine, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; i += kLine) add_channels(to, x, m, i, std::min(kLine, end - i));
  });
  add_products({.a = transposed_.data(),
                .b = transposed_.data(),
                .channels = k,
                .tokens = m,
                .lower = true,
                .to = to.gram.data()},
               product_, exec_);
  to.tokens += m;
}

}  // namespace nibble
