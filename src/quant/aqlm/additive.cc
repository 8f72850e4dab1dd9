#include "quant/aqlm/additive.h"

#include <algorithm>

#include "quant/common/inverse_factor.h"

namespace nibble::aqlm {

std::vector<float> sums_of_words(const Problem& problem, const Codebooks& books, const Codes& codes, ThreadPool& pool) {
  std::vector<float> out(static_cast<std::size_t>(problem.rows * problem.cols));
  const std::int64_t g = problem.dims, groups = problem.groups();
  pool.run(problem.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t at = begin * groups; at < end * groups; ++at) {
      float* to = out.data() + at * g;
      for (std::int64_t k = 0; k < books.count; ++k) {
        const float* word = books.word(k, codes[static_cast<std::size_t>(at * books.count + k)]);
        for (std::int64_t i = 0; i < g; ++i) to[i] += word[i];
      }
    }
  });
  return out;
}

std::vector<float> errors_of(const Problem& problem, const Codebooks& books, const Codes& codes, ThreadPool& pool) {
  std::vector<float> out = sums_of_words(problem, books, codes, pool);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = problem.target[i] - out[i];
  return out;
}

std::vector<float> times_gram(const Problem& problem, const std::vector<float>& x, Exec& exec) {
  const std::int64_t n = problem.cols;
  std::vector<float> out(x.size());
  product_transposed({x.data(), problem.rows, n, problem.gram.data(), n, n, out.data(), n}, exec);
  return out;
}

std::vector<double> row_losses(const Problem& problem, const std::vector<float>& errors, Exec& exec) {
  const std::vector<float> product = times_gram(problem, errors, exec);
  std::vector<double> out(static_cast<std::size_t>(problem.rows));
  exec.pool.run(problem.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float *e = errors.data() + r * problem.cols, *p = product.data() + r * problem.cols;
      double sum = 0;
      for (std::int64_t i = 0; i < problem.cols; ++i) sum += static_cast<double>(e[i]) * static_cast<double>(p[i]);
      out[static_cast<std::size_t>(r)] = std::max(sum, 0.0);
    }
  });
  return out;
}

double loss_of(const Problem& problem, const std::vector<double>& row_losses) {
  double sum = 0;
  for (std::size_t r = 0; r < row_losses.size(); ++r) sum += static_cast<double>(problem.row_weight[r]) * row_losses[r];
  return sum;
}

}  // namespace nibble::aqlm
