#include "calib/float_target.h"

#include <algorithm>

#include "base/error.h"
#include "calib/gram.h"
#include "quant/common/inverse_factor.h"

namespace nibble {
namespace {

constexpr double kDampStep = 0.01;

/// to [cols, rows] = from [rows, cols].
void transpose(const float* from, std::int64_t rows, std::int64_t cols, std::vector<float>& to, ThreadPool& pool) {
  to.resize(static_cast<std::size_t>(rows * cols));
  pool.run(cols, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t c = begin; c < end; ++c) {
      for (std::int64_t r = 0; r < rows; ++r) to[static_cast<std::size_t>(c * rows + r)] = from[r * cols + c];
    }
  });
}

}  // namespace

CrossStatistics::CrossStatistics(Names modules, Tap* inner, Exec& exec)
    : modules_(std::move(modules)), exec_(exec), float_tap_(*this), quantized_tap_(*this, inner) {}

void CrossStatistics::FloatTap::linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) {
  if (!owner_.modules_.contains(module)) return;
  if (shared_.input(module, x) != module) return;
  Sums& sums = owner_.of_leader_[std::string(module)];
  sums.differs = sums.differs || sums.tokens != 0;  // the quantized model sent nothing here
  sums.cols = k;
  sums.tokens = m;
  sums.floats.assign(x, x + m * k);
}

void CrossStatistics::QuantizedTap::linear_input(std::string_view module, const float* x, std::int64_t m,
                                                 std::int64_t k) {
  if (inner_ != nullptr) inner_->linear_input(module, x, m, k);
  if (!owner_.modules_.contains(module)) return;
  const std::string& leader = owner_.shared_.input(module, x);
  if (leader != module) return;
  Sums& sums = owner_.of_leader_[leader];
  if (sums.tokens != m || sums.cols != k) {
    sums.differs = true;
  } else {
    owner_.add(sums, x, m);
  }
  sums.tokens = 0;  // taken
}

void CrossStatistics::QuantizedTap::linear_output(std::string_view module, const float* y, std::int64_t m,
                                                  std::int64_t n) {
  if (inner_ != nullptr) inner_->linear_output(module, y, m, n);
  owner_.shared_.output();
}

void CrossStatistics::QuantizedTap::static_scales(std::string_view module, StaticScales& scales) {
  if (inner_ != nullptr) inner_->static_scales(module, scales);
}

void CrossStatistics::add(Sums& to, const float* x, std::int64_t m) {
  const std::int64_t k = to.cols;
  to.cross.resize(static_cast<std::size_t>(k * k));
  for (std::int64_t at = 0; at < m; at += kStatisticsTokens) {
    const std::int64_t tokens = std::min(kStatisticsTokens, m - at);
    transpose(to.floats.data() + at * k, tokens, k, floats_transposed_, exec_.pool);
    transpose(x + at * k, tokens, k, transposed_, exec_.pool);
    add_products({.a = floats_transposed_.data(),
                  .b = transposed_.data(),
                  .channels = k,
                  .tokens = tokens,
                  .lower = false,
                  .to = to.cross.data()},
                 product_, exec_);
  }
}

std::vector<float> CrossStatistics::matrix(std::string_view module, double factor) const {
  const std::string* leader = shared_.leader_of(module);
  if (leader == nullptr) return {};
  const Sums& sums = of_leader_.at(*leader);
  // Tokens that only the float model sent here.
  if (sums.differs || sums.tokens != 0) return {};
  std::vector<float> out(sums.cross.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(sums.cross[i] * factor);
  return out;
}

std::vector<float> float_target(std::span<const float> weight, std::int64_t rows, std::span<const float> cross,
                                std::span<const float> gram, double damp, double part, Exec& exec) {
  const std::int64_t cols = rows == 0 ? 0 : static_cast<std::int64_t>(weight.size()) / rows;
  check(static_cast<std::int64_t>(gram.size()) == cols * cols && cross.size() == gram.size(), "float_target: sizes");
  std::vector<float> out(weight.begin(), weight.end());
  if (!(mean_diagonal(gram, cols) > 0)) return out;
  std::vector<float> factor(gram.begin(), gram.end());
  const auto damping = damped_inverse_factor(factor, cols, damp, kDampStep, exec);
  if (!damping) return out;
  // (G + l I)^-1 = U'U: W C U' U, from the left.
  std::vector<float> other(cross.begin(), cross.end()), transposed;
  add_to_diagonal(other, cols, damping->value);
  transpose(other.data(), cols, cols, transposed, exec.pool);
  std::vector<float> product(out.size()), solved(out.size());
  product_transposed({out.data(), rows, cols, transposed.data(), cols, cols, product.data(), cols}, exec);
  product_transposed({product.data(), rows, cols, factor.data(), cols, cols, solved.data(), cols}, exec);
  transpose(factor.data(), cols, cols, transposed, exec.pool);
  product_transposed({solved.data(), rows, cols, transposed.data(), cols, cols, product.data(), cols}, exec);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += static_cast<float>(part) * (product[i] - out[i]);
  return out;
}

}  // namespace nibble
