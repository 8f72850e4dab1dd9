#include "quant/aqlm/code_pass.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "quant/common/inverse_factor.h"

namespace nibble::aqlm {
namespace {

/// Columns that are kept up to date group by group; beyond them products of whole blocks do it.
constexpr std::int64_t kBlockCols = 128;
/// Rows that are searched together.
constexpr std::int64_t kBatch = 64;
/// Columns of a product that is held at once.
constexpr std::int64_t kStrip = 512;

/// Consecutive groups.
struct Block {
  std::int64_t first_col, cols, first_group, groups;
};

std::vector<Block> blocks_of(const Problem& p) {
  const std::int64_t step = std::max<std::int64_t>(kBlockCols / p.dims, 1);
  std::vector<Block> out;
  for (std::int64_t j = 0; j < p.groups(); j += step) {
    const std::int64_t groups = std::min(step, p.groups() - j);
    out.push_back({j * p.dims, groups * p.dims, j, groups});
  }
  return out;
}

/// Half norms of all groups of a block: [groups, half_size].
template <class MetricOf>
std::vector<float> half_norms_of(const Block& block, const GroupSearch& search, ThreadPool& pool, MetricOf metric_of) {
  std::vector<float> half(static_cast<std::size_t>(block.groups * search.half_size()));
  pool.run(block.groups, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t j = begin; j < end; ++j) {
      search.prepare(metric_of(block.first_group + j), half.data() + j * search.half_size());
    }
  });
  return half;
}

/// The sum of the words that `codes` [K] names.
void sum_words(const Codebooks& books, const std::int32_t* codes, float* out) {
  std::fill_n(out, books.dims, 0.0F);
  for (std::int64_t k = 0; k < books.count; ++k) {
    const float* word = books.word(k, codes[k]);
    for (std::int64_t i = 0; i < books.dims; ++i) out[i] += word[i];
  }
}

/// to[0, cols) += x[0, rows) M for a part of a matrix M with row stride `stride`.
void add_product(const float* x, std::int64_t rows, const float* m, std::int64_t stride, std::int64_t cols, float* to) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const float factor = x[i];
    const float* row = m + i * stride;
    for (std::int64_t c = 0; c < cols; ++c) to[c] += factor * row[c];
  }
}

/// One worker's rows of one block of improve_codes().
class Improvement {
 public:
  Improvement(const Problem& problem, const GroupSearch& search, const Codebooks& books, const Block& block,
              const float* half)
      : p_(problem), search_(search), books_(books), block_(block), half_(half), points_(kBatch * problem.dims) {}

  /// Rows [row, row + count); `gradient` [rows, block cols] is (T - u) G. Returns the groups that changed.
  std::int64_t run(std::int64_t row, std::int64_t count, Codes& codes, float* errors, float* gradient) {
    std::int64_t changed = 0;
    for (std::int64_t j = 0; j < block_.groups; ++j) {
      const std::int64_t group = block_.first_group + j, col = group * p_.dims;
      const Metric h{p_.gram.data() + col * (p_.cols + 1), p_.cols};
      std::int32_t* first = codes.data() + (row * p_.groups() + group) * books_.count;
      const std::int64_t stride = p_.groups() * books_.count;
      std::vector<float>& old = old_;
      old.resize(static_cast<std::size_t>(count * p_.dims));
      for (std::int64_t r = 0; r < count; ++r) {
        sum_words(books_, first + r * stride, old.data() + r * p_.dims);
        float* point = points_.data() + r * p_.dims;
        std::copy_n(gradient + r * block_.cols + j * p_.dims, p_.dims, point);
        add_product(old.data() + r * p_.dims, p_.dims, h.data, h.stride, p_.dims, point);
      }
      search_.run({h, half_ + j * search_.half_size(), points_.data(), count, first, stride, true}, scratch_);
      for (std::int64_t r = 0; r < count; ++r) {
        changed += apply(row + r, j, first + r * stride, old.data() + r * p_.dims, errors, gradient + r * block_.cols);
      }
    }
    return changed;
  }

 private:
  /// The words of group j of a row have become `codes`.
  std::int64_t apply(std::int64_t row, std::int64_t j, const std::int32_t* codes, const float* old, float* errors,
                     float* gradient) {
    std::array<float, kMaxDims> change;
    sum_words(books_, codes, change.data());
    bool any = false;
    for (std::int64_t i = 0; i < p_.dims; ++i) {
      float& c = change[static_cast<std::size_t>(i)];
      c = old[i] - c;
      any = any || c != 0;
    }
    if (!any) return 0;
    const std::int64_t col = (block_.first_group + j) * p_.dims, next = (j + 1) * p_.dims;
    float* error = errors + row * p_.cols + col;
    for (std::int64_t i = 0; i < p_.dims; ++i) error[i] += change[static_cast<std::size_t>(i)];
    add_product(change.data(), p_.dims, p_.gram.data() + col * p_.cols + block_.first_col + next, p_.cols,
                block_.cols - next, gradient + next);
    return 1;
  }

  const Problem& p_;
  const GroupSearch& search_;
  const Codebooks& books_;
  const Block& block_;
  const float* half_;
  std::vector<float> points_, old_;
  GroupSearch::Scratch scratch_;
};

/// The inverse of the upper triangular block u [n, n] with row stride `stride`.
void invert_upper(const float* u, std::int64_t stride, std::int64_t n, float* out) {
  std::fill_n(out, n * n, 0.0F);
  for (std::int64_t col = 0; col < n; ++col) {
    for (std::int64_t row = col; row >= 0; --row) {
      double sum = row == col ? 1 : 0;
      for (std::int64_t k = row + 1; k <= col; ++k) {
        sum -= static_cast<double>(u[row * stride + k]) * static_cast<double>(out[k * n + col]);
      }
      out[row * n + col] = static_cast<float>(sum / static_cast<double>(u[row * stride + row]));
    }
  }
}

/// One worker's rows of one block of codes_with_feedback().
class FeedbackRows {
 public:
  FeedbackRows(const Problem& problem, const ErrorFeedback& feedback, const GroupSearch& search, const Codebooks& books,
               const Block& block, const float* half)
      : p_(problem),
        feedback_(feedback),
        search_(search),
        books_(books),
        block_(block),
        half_(half),
        points_(kBatch * problem.dims) {}

  /// `moved` [rows, cols]: the targets as they are now; `z` [rows, block cols]: what the later columns will get.
  void run(std::int64_t row, std::int64_t count, Codes& codes, float* moved, float* z) {
    for (std::int64_t j = 0; j < block_.groups; ++j) {
      const std::int64_t group = block_.first_group + j, col = group * p_.dims;
      const Metric h = feedback_.metric(group);
      std::int32_t* first = codes.data() + (row * p_.groups() + group) * books_.count;
      const std::int64_t stride = p_.groups() * books_.count;
      std::fill(points_.begin(), points_.end(), 0.0F);
      for (std::int64_t r = 0; r < count; ++r) {
        add_product(moved + r * p_.cols + col, p_.dims, h.data, h.stride, p_.dims, points_.data() + r * p_.dims);
      }
      search_.run({h, half_ + j * search_.half_size(), points_.data(), count, first, stride, false}, scratch_);
      for (std::int64_t r = 0; r < count; ++r) {
        pass_on(j, first + r * stride, moved + r * p_.cols, z + r * block_.cols);
      }
    }
  }

 private:
  void pass_on(std::int64_t j, const std::int32_t* codes, float* moved, float* z) {
    const std::int64_t group = block_.first_group + j, col = group * p_.dims, next = (j + 1) * p_.dims;
    std::array<float, kMaxDims> error;
    sum_words(books_, codes, error.data());
    for (std::int64_t i = 0; i < p_.dims; ++i) {
      error[static_cast<std::size_t>(i)] = moved[col + i] - error[static_cast<std::size_t>(i)];
    }
    float* own = z + j * p_.dims;
    std::fill_n(own, p_.dims, 0.0F);
    add_product(error.data(), p_.dims, feedback_.inverse(group), p_.dims, p_.dims, own);
    for (std::int64_t i = 0; i < p_.dims; ++i) own[i] = -own[i];
    add_product(own, p_.dims, feedback_.factor() + col * p_.cols + block_.first_col + next, p_.cols, block_.cols - next,
                moved + block_.first_col + next);
  }

  const Problem& p_;
  const ErrorFeedback& feedback_;
  const GroupSearch& search_;
  const Codebooks& books_;
  const Block& block_;
  const float* half_;
  std::vector<float> points_;
  GroupSearch::Scratch scratch_;
};

/// moved[:, after the block] += z U[block, after the block].
void pass_on_block(const Problem& p, const Block& block, const ErrorFeedback& feedback, const std::vector<float>& z,
                   std::vector<float>& moved, Exec& exec) {
  std::vector<float> u, product;
  for (std::int64_t first = block.first_col + block.cols; first < p.cols; first += kStrip) {
    const std::int64_t cols = std::min(kStrip, p.cols - first);
    u.resize(static_cast<std::size_t>(cols * block.cols));
    for (std::int64_t i = 0; i < block.cols; ++i) {
      const float* from = feedback.factor() + (block.first_col + i) * p.cols + first;
      for (std::int64_t c = 0; c < cols; ++c) u[static_cast<std::size_t>(c * block.cols + i)] = from[c];
    }
    product.resize(static_cast<std::size_t>(p.rows * cols));
    product_transposed({z.data(), p.rows, block.cols, u.data(), cols, block.cols, product.data(), cols}, exec);
    exec.pool.run(p.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        float* to = moved.data() + r * p.cols + first;
        const float* from = product.data() + r * cols;
        for (std::int64_t c = 0; c < cols; ++c) to[c] += from[c];
      }
    });
  }
}

}  // namespace

std::int64_t improve_codes(const Problem& problem, const GroupSearch& search, const Codebooks& books, Codes& codes,
                           std::vector<float>& errors, Exec& exec) {
  std::atomic<std::int64_t> changed{0};
  std::vector<float> gradient;
  for (const Block& block : blocks_of(problem)) {
    const std::vector<float> half = half_norms_of(block, search, exec.pool, [&](std::int64_t group) {
      return Metric{problem.gram.data() + group * problem.dims * (problem.cols + 1), problem.cols};
    });
    gradient.resize(static_cast<std::size_t>(problem.rows * block.cols));
    product_transposed({errors.data(), problem.rows, problem.cols, problem.gram.data() + block.first_col * problem.cols,
                        block.cols, problem.cols, gradient.data(), block.cols},
                       exec);
    exec.pool.run(problem.rows, kBatch, [&](std::int64_t begin, std::int64_t end, int) {
      Improvement rows(problem, search, books, block, half.data());
      std::int64_t sum = 0;
      for (std::int64_t r = begin; r < end; r += kBatch) {
        sum += rows.run(r, std::min(kBatch, end - r), codes, errors.data(), gradient.data() + r * block.cols);
      }
      changed += sum;
    });
  }
  return changed;
}

ErrorFeedback::ErrorFeedback(const Problem& problem, double damp, Exec& exec) : dims_(problem.dims) {
  const std::int64_t n = problem.cols, g = dims_, groups = problem.groups();
  factor_ = problem.gram;
  add_to_diagonal(factor_, n, static_cast<float>(damp * mean_diagonal(factor_, n)));
  usable_ = inverse_upper_factor(factor_, n, exec);
  if (!usable_) return;
  metrics_.resize(static_cast<std::size_t>(groups * g * g));
  inverses_.resize(metrics_.size());
  exec.pool.run(groups, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t j = begin; j < end; ++j) {
      float *inverse = inverses_.data() + j * g * g, *metric = metrics_.data() + j * g * g;
      invert_upper(factor_.data() + j * g * (n + 1), n, g, inverse);
      for (std::int64_t i = 0; i < g; ++i) {
        for (std::int64_t k = 0; k < g; ++k) {
          double sum = 0;
          for (std::int64_t c = 0; c < g; ++c) {
            sum += static_cast<double>(inverse[i * g + c]) * static_cast<double>(inverse[k * g + c]);
          }
          metric[i * g + k] = static_cast<float>(sum);
        }
      }
    }
  });
}

Metric ErrorFeedback::metric(std::int64_t group) const { return {metrics_.data() + group * dims_ * dims_, dims_}; }
const float* ErrorFeedback::inverse(std::int64_t group) const { return inverses_.data() + group * dims_ * dims_; }

Codes codes_with_feedback(const Problem& problem, const ErrorFeedback& feedback, const GroupSearch& search,
                          const Codebooks& books, Exec& exec) {
  Codes codes(static_cast<std::size_t>(problem.rows * problem.groups() * books.count));
  std::vector<float> moved = problem.target, z;
  for (const Block& block : blocks_of(problem)) {
    const std::vector<float> half =
        half_norms_of(block, search, exec.pool, [&](std::int64_t group) { return feedback.metric(group); });
    z.resize(static_cast<std::size_t>(problem.rows * block.cols));
    exec.pool.run(problem.rows, kBatch, [&](std::int64_t begin, std::int64_t end, int) {
      FeedbackRows rows(problem, feedback, search, books, block, half.data());
      for (std::int64_t r = begin; r < end; r += kBatch) {
        rows.run(r, std::min(kBatch, end - r), codes, moved.data() + r * problem.cols, z.data() + r * block.cols);
      }
    });
    pass_on_block(problem, block, feedback, z, moved, exec);
  }
  return codes;
}

}  // namespace nibble::aqlm
