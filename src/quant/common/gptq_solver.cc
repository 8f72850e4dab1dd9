#include "quant/common/gptq_solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "quant/common/inverse_factor.h"
#include "quant/common/rounding.h"

namespace nibble {
namespace {

constexpr double kUsualNorm = 2.4;    // of AutoGPTQ's search for ranges
constexpr std::int64_t kBlock = 128;  // columns between two updates of the rest, as in the libraries

float quantized(float x, GptqGrid grid, float last) {
  const float code = std::nearbyint(x / grid.scale) + grid.zero;
  return code < 0 ? 0 : code > last ? last : code;
}

float last_code(const GptqOptions& options) { return static_cast<float>((1 << options.bits) - 1); }

struct Range {
  float low, high;
};

GptqGrid plain_grid(Range range, const GptqOptions& options) {
  const float last = last_code(options), scale = (range.high - range.low) / last;
  return {scale, options.sym ? (last + 1) / 2 : std::nearbyint(-range.low / scale)};
}

/// The best of 80 shrunk ranges: 1, 0.99, ... 0.21 of the full one.
GptqGrid searched_grid(const float* x, std::int64_t count, Range range, const GptqOptions& options) {
  const float last = last_code(options);
  GptqGrid best = plain_grid(range, options);
  float least = INFINITY;
  for (int i = 0; i < 80; ++i) {
    const auto part = static_cast<float>(1 - i / 100.0);
    const GptqGrid grid = plain_grid({part * range.low, part * range.high}, options);
    float error = 0;
    for (std::int64_t k = 0; k < count; ++k) {
      const float off = std::fabs(grid.scale * (quantized(x[k], grid, last) - grid.zero) - x[k]);
      error += std::pow(off, static_cast<float>(options.mse_norm));
    }
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

/// One weight on its way: columns in the order in which they are quantized.
class Solver {
 public:
  Solver(std::span<const float> weight, std::int64_t rows, std::span<const float> gram, const GptqOptions& options,
         Exec& exec)
      : options_(options),
        exec_(exec),
        rows_(rows),
        cols_(static_cast<std::int64_t>(weight.size()) / std::max<std::int64_t>(rows, 1)),
        group_(options.group == -1 ? cols_ : options.group),
        groups_((cols_ + group_ - 1) / group_),
        w_(weight.begin(), weight.end()),
        h_(gram.begin(), gram.end()) {
    result_.groups = groups_;
    result_.codes.resize(w_.size());
    result_.scale.resize(static_cast<std::size_t>(rows_ * groups_));
    result_.zero.resize(result_.scale.size());
  }

  /// Without a matrix: grids, then nearest codes.
  GptqResult round() {
    order_.resize(static_cast<std::size_t>(cols_));
    std::iota(order_.begin(), order_.end(), 0);
    find_groups(false);
    round_all();
    finish();
    return std::move(result_);
  }

  /// Without codes when the matrix cannot be factored.
  GptqResult run() {
    if (whole_rows()) find_groups(true);  // from all weights, those of dead inputs included
    clear_dead();
    fixed_grids_ = whole_rows() || options_.static_groups;
    if (!whole_rows() && options_.static_groups) find_groups(false);
    choose_order();
    if (!factor()) return {};
    for (std::int64_t at = 0; at < cols_; at += kBlock) quantize_block(at, std::min(kBlock, cols_ - at));
    finish();
    return std::move(result_);
  }

 private:
  bool whole_rows() const { return options_.group == -1; }
  float& grid_scale(std::int64_t row, std::int64_t group) {
    return result_.scale[static_cast<std::size_t>(row * groups_ + group)];
  }
  float& grid_zero(std::int64_t row, std::int64_t group) {
    return result_.zero[static_cast<std::size_t>(row * groups_ + group)];
  }

  void set_grid(std::int64_t row, std::int64_t group, const float* x, std::int64_t count) {
    const GptqGrid grid = gptq_grid(x, count, options_);
    grid_scale(row, group) = grid.scale;
    grid_zero(row, group) = grid.zero;
  }

  void find_groups(bool whole) {
    exec_.pool.run(rows_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t g = 0; g < (whole ? 1 : groups_); ++g) {
          set_grid(r, g, w_.data() + r * cols_ + g * group_, std::min(group_, cols_ - g * group_));
        }
      }
    });
  }

  void clear_dead() {
    for (std::int64_t k = 0; k < cols_; ++k) {
      float& diagonal = h_[static_cast<std::size_t>(k * cols_ + k)];
      if (diagonal != 0) continue;
      diagonal = 1;
      ++result_.dead;
      for (std::int64_t r = 0; r < rows_; ++r) w_[static_cast<std::size_t>(r * cols_ + k)] = 0;
    }
  }

  bool group_aware() const { return options_.act_group_aware && !options_.desc_act && !whole_rows(); }

  /// Columns by falling diagonal of the matrix: all (desc_act), or groups by their largest and each in itself.
  void choose_order() {
    order_.resize(static_cast<std::size_t>(cols_));
    std::iota(order_.begin(), order_.end(), 0);
    if (!options_.desc_act && !group_aware()) return;
    const auto larger = [&](std::int32_t a, std::int32_t b) {
      const auto diagonal = [&](std::int32_t k) {
        return h_[static_cast<std::size_t>(k) * static_cast<std::size_t>(cols_ + 1)];
      };
      return diagonal(a) > diagonal(b);
    };
    if (options_.desc_act) {
      std::stable_sort(order_.begin(), order_.end(), larger);
    } else {
      order_groups(larger);
    }
    const std::vector<float> w = w_, h = h_;
    for (std::int64_t r = 0; r < rows_; ++r) permute(w.data() + r * cols_, w_.data() + r * cols_);
    for (std::int64_t r = 0; r < cols_; ++r) {
      permute(h.data() + order_[static_cast<std::size_t>(r)] * cols_, h_.data() + r * cols_);
    }
  }
  template <class Larger>
  void order_groups(const Larger& larger) {
    std::vector<std::vector<std::int32_t>> groups;
    for (std::int64_t at = 0; at < cols_; at += group_) {
      groups.emplace_back(order_.begin() + at, order_.begin() + std::min(at + group_, cols_));
      std::stable_sort(groups.back().begin(), groups.back().end(), larger);
    }
    std::stable_sort(groups.begin(), groups.end(),
                     [&](const auto& a, const auto& b) { return larger(a.front(), b.front()); });
    order_.clear();
    for (const auto& group : groups) order_.insert(order_.end(), group.begin(), group.end());
  }
  void permute(const float* from, float* to) const {
    for (std::int64_t k = 0; k < cols_; ++k) to[k] = from[order_[static_cast<std::size_t>(k)]];
  }

  /// Turns h_ into the factor of the inverse, with as much damping as that takes.
  bool factor() {
    const auto damping = damped_inverse_factor(h_, cols_, options_.damp, options_.damp_step, exec_);
    if (damping) result_.damp = damping->part;
    return damping.has_value();
  }

  void quantize_block(std::int64_t at, std::int64_t size) {
    std::vector<float> errors(static_cast<std::size_t>(rows_ * size));
    std::vector<double> loss(static_cast<std::size_t>(rows_));
    exec_.pool.run(rows_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::vector<float> work(static_cast<std::size_t>(size));
      for (std::int64_t r = begin; r < end; ++r) {
        loss[static_cast<std::size_t>(r)] = quantize_row(r, at, size, work.data(), errors.data() + r * size);
      }
    });
    for (const double part : loss) result_.loss += part;
    update_rest(at, size, errors);
  }

  /// The columns [at, at + size) of one row; gives its loss.
  double quantize_row(std::int64_t r, std::int64_t at, std::int64_t size, float* work, float* errors) {
    const float last = last_code(options_);
    float* row = w_.data() + r * cols_;
    std::copy_n(row + at, size, work);
    double loss = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t k = at + i;
      // A group's grid is that of the weights as earlier blocks left them, without what this block has done so far.
      const std::int64_t g = group_of(k);
      if (!fixed_grids_ && k % group_ == 0) set_grid(r, g, row + k, std::min(group_, cols_ - k));
      const GptqGrid grid{grid_scale(r, g), grid_zero(r, g)};
      const float* u = h_.data() + k * cols_ + at;
      const float code = quantized(work[i], grid, last), value = grid.scale * (code - grid.zero);
      const float error = (work[i] - value) / u[i];
      loss += 0.5 * static_cast<double>(error) * static_cast<double>(error);
      result_.codes[static_cast<std::size_t>(r * cols_ + order_[static_cast<std::size_t>(k)])] =
          static_cast<std::uint8_t>(code);
      for (std::int64_t j = i; j < size; ++j) work[j] -= error * u[j];
      errors[i] = error;
    }
    return loss;
  }

  std::int64_t group_of(std::int64_t k) const {
    if (whole_rows()) return 0;
    return (options_.static_groups || group_aware() ? order_[static_cast<std::size_t>(k)] : k) / group_;
  }

  /// The later columns make up for the block's errors.
  void update_rest(std::int64_t at, std::int64_t size, const std::vector<float>& errors) {
    const std::int64_t first = at + size, rest = cols_ - first;
    if (rest == 0) return;
    std::vector<float> u(static_cast<std::size_t>(rest * size)), product(static_cast<std::size_t>(rows_ * rest));
    for (std::int64_t i = 0; i < size; ++i) {
      const float* from = h_.data() + (at + i) * cols_ + first;
      for (std::int64_t j = 0; j < rest; ++j) u[static_cast<std::size_t>(j * size + i)] = from[j];
    }
    product_transposed({errors.data(), rows_, size, u.data(), rest, size, product.data(), rest}, exec_);
    exec_.pool.run(rows_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        float* to = w_.data() + r * cols_ + first;
        const float* from = product.data() + r * rest;
        for (std::int64_t j = 0; j < rest; ++j) to[j] -= from[j];
      }
    });
  }

  void round_all() {
    exec_.pool.run(rows_, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t k = 0; k < cols_; ++k) {
          const float* x = w_.data() + r * cols_ + k;
          const GptqGrid grid{grid_scale(r, k / group_), grid_zero(r, k / group_)};
          result_.codes[static_cast<std::size_t>(r * cols_ + k)] =
              static_cast<std::uint8_t>(quantized(*x, grid, last_code(options_)));
        }
      }
    });
  }

  void finish() {
    result_.g_idx.resize(static_cast<std::size_t>(cols_));
    for (std::int64_t k = 0; k < cols_; ++k) {
      result_.g_idx[static_cast<std::size_t>(order_[static_cast<std::size_t>(k)])] =
          static_cast<std::int32_t>(group_of(k));
    }
  }

  const GptqOptions& options_;
  Exec& exec_;
  std::int64_t rows_, cols_, group_, groups_;
  std::vector<float> w_, h_;
  std::vector<std::int32_t> order_;  ///< the input that is quantized k-th
  bool fixed_grids_ = false;
  GptqResult result_;
};

}  // namespace

void check_gptq_options(const GptqOptions& options, std::int64_t cols) {
  if (options.bits < 2 || options.bits > 8) throw bad_input("GPTQ: ", options.bits, " bits (2 to 8 are possible)");
  if (options.group != -1 && (options.group < 1 || cols % options.group != 0)) {
    throw bad_input("GPTQ: groups of ", options.group, " do not divide ", cols, " inputs");
  }
  if (!(options.damp >= 0 && options.damp < 1))
    throw bad_input("GPTQ: damping of ", options.damp, " (0 to 1 is possible)");
}

GptqGrid gptq_grid(const float* x, std::int64_t count, const GptqOptions& options) {
  Range range{0, 0};
  for (std::int64_t k = 0; k < count; ++k) {
    range.low = std::min(range.low, x[k]);
    range.high = std::max(range.high, x[k]);
  }
  if (options.sym) {
    range.high = std::max(-range.low, range.high);
    if (range.low < 0) range.low = -range.high;
  }
  if (range.low == 0 && range.high == 0) range = {-1, 1};
  return options.mse_norm > 0 ? searched_grid(x, count, range, options) : plain_grid(range, options);
}

GptqResult gptq_quantize(std::span<const float> weight, std::int64_t rows, std::span<const float> gram,
                         const GptqOptions& options, Exec& exec) {
  const std::int64_t cols = rows == 0 ? 0 : static_cast<std::int64_t>(weight.size()) / rows;
  check_gptq_options(options, cols);
  check(static_cast<std::int64_t>(gram.size()) == cols * cols, "gptq_quantize: size of the Gram matrix");
  GptqResult out = Solver(weight, rows, gram, options, exec).run();
  if (!out.codes.empty() || weight.empty()) return out;
  GptqOptions searched = options;
  if (searched.mse_norm == 0) searched.mse_norm = kUsualNorm;
  searched.desc_act = searched.act_group_aware = false;
  out = round_to_nearest(weight, rows, searched, exec);
  out.rounded = true;
  return out;
}

GptqResult round_to_nearest(std::span<const float> weight, std::int64_t rows, const GptqOptions& options, Exec& exec) {
  check_gptq_options(options, rows == 0 ? 0 : static_cast<std::int64_t>(weight.size()) / rows);
  return Solver(weight, rows, {}, options, exec).round();
}

GptqResult solve_grid(std::span<const float> weight, std::int64_t rows, std::span<const float> gram,
                      const GridSolver& solver, Exec& exec) {
  const GptqOptions& o = solver.options;
  GptqResult solved = solver.algorithm == GridAlgorithm::rtn ? round_to_nearest(weight, rows, o, exec)
                                                             : gptq_quantize(weight, rows, gram, o, exec);
  if (solver.refine > 0 && !gram.empty()) {
    const RefineOptions options{.bits = o.bits, .passes = solver.refine, .move_zeros = !o.sym, .damp = o.damp};
    solved.loss = refine_grid(weight, rows, gram, options, solved, exec).after / 2;  // gram is twice the mean
  }
  return solved;
}

}  // namespace nibble
