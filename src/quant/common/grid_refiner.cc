#include "quant/common/grid_refiner.h"

#include <algorithm>
#include <cmath>

#include "base/dtype.h"
#include "base/error.h"
#include "quant/common/inverse_factor.h"

namespace nibble {
namespace {

/// Rows that walk along the columns together, so that a row of the matrix is read once for all of them.
constexpr std::int64_t kRows = 16;

float as_f16(float value) { return round_to(DType::f16, value); }

class Refiner {
 public:
  Refiner(std::span<const float> weight, std::int64_t rows, std::span<const float> gram, const RefineOptions& options,
          GridCodes& grid, Exec& exec)
      : options_(options),
        exec_(exec),
        rows_(rows),
        cols_(static_cast<std::int64_t>(grid.g_idx.size())),
        weight_(weight),
        h_(gram.begin(), gram.end()),
        grid_(grid),
        error_(weight.size()),
        pull_(weight.size()) {
    for (std::int64_t k = 0; k < cols_; ++k) {
      members_.resize(static_cast<std::size_t>(grid.groups));
      members_[static_cast<std::size_t>(grid.g_idx[static_cast<std::size_t>(k)])].push_back(k);
    }
    add_to_diagonal(h_, cols_, static_cast<float>(options.damp * mean_diagonal(h_, cols_)));
  }

  RefineLoss run() {
    for (float& scale : grid_.scale) scale = as_f16(scale);
    RefineLoss out;
    measure();
    out.before = loss();
    for (std::int32_t pass = 0; pass < options_.passes; ++pass) {
      exec_.pool.run((rows_ + kRows - 1) / kRows, 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) refine_rows(i * kRows, std::min(rows_, (i + 1) * kRows));
      });
      measure();  // anew, so that roundings do not add up from pass to pass
    }
    out.after = loss();
    return out;
  }

 private:
  std::uint8_t& code(std::int64_t row, std::int64_t col) {
    return grid_.codes[static_cast<std::size_t>(row * cols_ + col)];
  }
  float& scale(std::int64_t row, std::int64_t group) {
    return grid_.scale[static_cast<std::size_t>(row * grid_.groups + group)];
  }
  float& zero(std::int64_t row, std::int64_t group) {
    return grid_.zero[static_cast<std::size_t>(row * grid_.groups + group)];
  }
  float last() const { return static_cast<float>((1 << options_.bits) - 1); }

  /// error = W - Q and pull = error G, half of the loss's downhill slope.
  void measure() {
    exec_.pool.run(rows_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t k = 0; k < cols_; ++k) {
          const std::int64_t g = grid_.g_idx[static_cast<std::size_t>(k)];
          const float value = scale(r, g) * (static_cast<float>(code(r, k)) - zero(r, g));
          error_[static_cast<std::size_t>(r * cols_ + k)] = weight_[static_cast<std::size_t>(r * cols_ + k)] - value;
        }
      }
    });
    product_transposed({error_.data(), rows_, cols_, h_.data(), cols_, cols_, pull_.data(), cols_}, exec_);
  }

  double loss() const {
    std::vector<double> part(static_cast<std::size_t>(rows_));
    exec_.pool.run(rows_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        double sum = 0;
        for (std::int64_t k = r * cols_; k < (r + 1) * cols_; ++k) {
          sum += static_cast<double>(error_[static_cast<std::size_t>(k)]) *
                 static_cast<double>(pull_[static_cast<std::size_t>(k)]);
        }
        part[static_cast<std::size_t>(r)] = sum;
      }
    });
    double sum = 0;
    for (const double one : part) sum += one;
    return sum;
  }

  void refine_rows(std::int64_t row0, std::int64_t row1) {
    for (std::int64_t k = 0; k < cols_; ++k) {
      for (std::int64_t r = row0; r < row1; ++r) move_code(r, k);
    }
    std::vector<float> slope(static_cast<std::size_t>(cols_));
    for (std::int64_t g = 0; g < grid_.groups; ++g) {
      for (std::int64_t r = row0; r < row1; ++r) {
        move_scale(r, g, slope.data());
        if (options_.move_zeros) move_zero(r, g, slope.data());
      }
    }
  }

  /// pull -= by * (row k of the matrix), after the value at k grew by `by`.
  void follow(std::int64_t r, std::int64_t k, float by) {
    float* pull = pull_.data() + r * cols_;
    const float* h = h_.data() + k * cols_;
    for (std::int64_t j = 0; j < cols_; ++j) pull[j] -= by * h[j];
  }

  void move_code(std::int64_t r, std::int64_t k) {
    const float curvature = h_[static_cast<std::size_t>(k * (cols_ + 1))];
    const float step = scale(r, grid_.g_idx[static_cast<std::size_t>(k)]);
    if (!(curvature > 0) || step == 0) return;
    const float now = code(r, k);
    const float wanted = std::clamp(
        std::nearbyint(now + pull_[static_cast<std::size_t>(r * cols_ + k)] / (curvature * step)), 0.0F, last());
    if (wanted == now || std::isnan(wanted)) return;
    code(r, k) = static_cast<std::uint8_t>(wanted);
    follow(r, k, step * (wanted - now));
  }

  /// What a move of a group's values along `direction` [members] gains per step and costs per step squared.
  struct Line {
    double gain = 0, cost = 0;
  };
  Line line(std::int64_t r, const std::vector<std::int64_t>& members, const float* direction) const {
    Line out;
    for (std::size_t i = 0; i < members.size(); ++i) {
      const float* h = h_.data() + members[i] * cols_;
      double sum = 0;
      for (std::size_t j = 0; j < members.size(); ++j) {
        sum += static_cast<double>(h[members[j]]) * static_cast<double>(direction[j]);
      }
      out.gain += static_cast<double>(direction[i]) *
                  static_cast<double>(pull_[static_cast<std::size_t>(r * cols_ + members[i])]);
      out.cost += sum * static_cast<double>(direction[i]);
    }
    return out;
  }

  void move_scale(std::int64_t r, std::int64_t g, float* direction) {
    const std::vector<std::int64_t>& members = members_[static_cast<std::size_t>(g)];
    for (std::size_t i = 0; i < members.size(); ++i) {
      direction[i] = static_cast<float>(code(r, members[i])) - zero(r, g);
    }
    const Line along = line(r, members, direction);
    if (!(along.cost > 0)) return;
    const float now = scale(r, g),
                next = as_f16(static_cast<float>(static_cast<double>(now) + along.gain / along.cost));
    const double step = static_cast<double>(next) - static_cast<double>(now);
    // Rounding to f16 may step over the optimum.
    if (!std::isfinite(next) || step == 0 || step * (2 * along.gain - step * along.cost) <= 0) return;
    if ((next > 0) != (now > 0)) return;  // a scale of zero or another sign is no grid that readers expect
    scale(r, g) = next;
    for (std::size_t i = 0; i < members.size(); ++i) follow(r, members[i], static_cast<float>(step) * direction[i]);
  }

  void move_zero(std::int64_t r, std::int64_t g, float* direction) {
    const std::vector<std::int64_t>& members = members_[static_cast<std::size_t>(g)];
    std::fill_n(direction, members.size(), -scale(r, g));
    const Line along = line(r, members, direction);
    if (!(along.cost > 0)) return;
    const float now = zero(r, g);
    const float next = std::clamp(
        std::nearbyint(static_cast<float>(static_cast<double>(now) + along.gain / along.cost)), 0.0F, last());
    if (next == now || std::isnan(next)) return;
    zero(r, g) = next;
    for (const std::int64_t k : members) follow(r, k, -scale(r, g) * (next - now));
  }

  const RefineOptions& options_;
  Exec& exec_;
  std::int64_t rows_, cols_;
  std::span<const float> weight_;
  std::vector<float> h_;
  GridCodes& grid_;
  std::vector<std::vector<std::int64_t>> members_;  ///< of each group
  std::vector<float> error_, pull_;                 ///< [rows, cols]
};

}  // namespace

RefineLoss refine_grid(std::span<const float> weight, std::int64_t rows, std::span<const float> gram,
                       const RefineOptions& options, GridCodes& grid, Exec& exec) {
  const auto cols = static_cast<std::int64_t>(grid.g_idx.size());
  check(static_cast<std::int64_t>(weight.size()) == rows * cols &&
            static_cast<std::int64_t>(gram.size()) == cols * cols && grid.codes.size() == weight.size() &&
            static_cast<std::int64_t>(grid.scale.size()) == rows * grid.groups && grid.zero.size() == grid.scale.size(),
        "refine_grid: sizes");
  return Refiner(weight, rows, gram, options, grid, exec).run();
}

}  // namespace nibble
