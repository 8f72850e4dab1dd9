#include "quant/aqlm/codebook_fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace nibble::aqlm {
namespace {

/// Added to the preconditioner's blocks, times their mean diagonal: words of few groups see singular blocks.
constexpr double kRidge = 1e-3;
/// Conjugate gradients end when the preconditioned gradient has shrunk to this part of what it was (squared).
constexpr double kEnough = 1e-6;

/// Where each word is used: groups (row * groups + j) by codebook and word, in ascending order.
struct Uses {
  std::vector<std::int64_t> first;  ///< [K * entries + 1]
  std::vector<std::int64_t> place;  ///< [rows * groups * K]
};

Uses uses_of(const Codebooks& books, const Codes& codes) {
  Uses uses;
  const std::int64_t words = books.count * books.entries,
                     groups = static_cast<std::int64_t>(codes.size()) / books.count;
  uses.first.resize(static_cast<std::size_t>(words + 1));
  uses.place.resize(codes.size());
  const auto word_at = [&](std::int64_t at, std::int64_t k) {
    return static_cast<std::size_t>(k * books.entries + codes[static_cast<std::size_t>(at * books.count + k)]);
  };
  for (std::int64_t at = 0; at < groups; ++at) {
    for (std::int64_t k = 0; k < books.count; ++k) ++uses.first[word_at(at, k) + 1];
  }
  std::partial_sum(uses.first.begin(), uses.first.end(), uses.first.begin());
  std::vector<std::int64_t> next(uses.first.begin(), uses.first.end() - 1);
  for (std::int64_t at = 0; at < groups; ++at) {
    for (std::int64_t k = 0; k < books.count; ++k) uses.place[static_cast<std::size_t>(next[word_at(at, k)]++)] = at;
  }
  return uses;
}

/// Cholesky factor in place, lower triangle; rows and columns without a positive pivot are left out.
void factor(double* a, std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j) {
    double pivot = a[j * n + j];
    for (std::int64_t k = 0; k < j; ++k) pivot -= a[j * n + k] * a[j * n + k];
    const double root = pivot > 0 ? std::sqrt(pivot) : 0;
    a[j * n + j] = root;
    for (std::int64_t i = j + 1; i < n; ++i) {
      double sum = a[i * n + j];
      for (std::int64_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = root > 0 ? sum / root : 0;
    }
  }
}

void solve(const float* l, std::int64_t n, const float* b, float* x) {
  std::array<double, kMaxDims> y;
  for (std::int64_t i = 0; i < n; ++i) {
    double sum = static_cast<double>(b[i]);
    for (std::int64_t k = 0; k < i; ++k) sum -= static_cast<double>(l[i * n + k]) * y[static_cast<std::size_t>(k)];
    const auto pivot = static_cast<double>(l[i * n + i]);
    y[static_cast<std::size_t>(i)] = pivot > 0 ? sum / pivot : 0;
  }
  for (std::int64_t i = n - 1; i >= 0; --i) {
    double sum = y[static_cast<std::size_t>(i)];
    for (std::int64_t k = i + 1; k < n; ++k) {
      sum -= static_cast<double>(l[k * n + i]) * y[static_cast<std::size_t>(k)];
    }
    const auto pivot = static_cast<double>(l[i * n + i]);
    y[static_cast<std::size_t>(i)] = pivot > 0 ? sum / pivot : 0;
    x[i] = static_cast<float>(y[static_cast<std::size_t>(i)]);
  }
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

void add_scaled(double factor, const std::vector<float>& x, std::vector<float>& to) {
  const auto f = static_cast<float>(factor);
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += f * x[i];
}

class Fit {
 public:
  Fit(const Problem& problem, const Codes& codes, const Codebooks& books, Exec& exec)
      : p_(problem), codes_(codes), exec_(exec), uses_(uses_of(books, codes)) {
    const std::int64_t words = books.count * books.entries, g = p_.dims;
    blocks_.resize(static_cast<std::size_t>(words * g * g));
    exec_.pool.run(words, 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::vector<double> block(static_cast<std::size_t>(g * g));
      for (std::int64_t e = begin; e < end; ++e) make_block(e, block);
    });
  }

  /// Of every word: the sum over its uses of row_weight * (that group of `products` [rows, cols]).
  std::vector<float> gather(const std::vector<float>& products) const {
    const std::int64_t words = static_cast<std::int64_t>(uses_.first.size()) - 1, g = p_.dims;
    std::vector<float> out(static_cast<std::size_t>(words * g));
    exec_.pool.run(words, 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::array<double, kMaxDims> sum;
      for (std::int64_t e = begin; e < end; ++e) {
        sum.fill(0);
        for_uses(e, [&](std::int64_t at, double weight) {
          const float* from = products.data() + at * g;
          for (std::int64_t i = 0; i < g; ++i)
            sum[static_cast<std::size_t>(i)] += weight * static_cast<double>(from[i]);
        });
        for (std::int64_t i = 0; i < g; ++i) {
          out[static_cast<std::size_t>(e * g + i)] = static_cast<float>(sum[static_cast<std::size_t>(i)]);
        }
      }
    });
    return out;
  }

  std::vector<float> hessian_times(const Codebooks& direction) const {
    return gather(times_gram(p_, sums_of_words(p_, direction, codes_, exec_.pool), exec_));
  }

  std::vector<float> precondition(const std::vector<float>& x) const {
    const std::int64_t words = static_cast<std::int64_t>(uses_.first.size()) - 1, g = p_.dims;
    std::vector<float> out(x.size());
    exec_.pool.run(words, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t e = begin; e < end; ++e)
        solve(blocks_.data() + e * g * g, g, x.data() + e * g, out.data() + e * g);
    });
    return out;
  }

 private:
  template <class F>
  void for_uses(std::int64_t word, F&& f) const {
    const std::int64_t groups = p_.groups();
    for (std::int64_t u = uses_.first[static_cast<std::size_t>(word)];
         u < uses_.first[static_cast<std::size_t>(word + 1)]; ++u) {
      const std::int64_t at = uses_.place[static_cast<std::size_t>(u)];
      f(at, static_cast<double>(p_.row_weight[static_cast<std::size_t>(at / groups)]));
    }
  }

  /// The word's own block of the Hessian, factored: what its neighbours in the same row do is left out.
  void make_block(std::int64_t word, std::vector<double>& block) {
    const std::int64_t g = p_.dims;
    std::fill(block.begin(), block.end(), 0.0);
    for_uses(word, [&](std::int64_t at, double weight) {
      const float* h = p_.gram.data() + at % p_.groups() * g * (p_.cols + 1);
      for (std::int64_t i = 0; i < g; ++i) {
        for (std::int64_t k = 0; k <= i; ++k)
          block[static_cast<std::size_t>(i * g + k)] += weight * static_cast<double>(h[i * p_.cols + k]);
      }
    });
    double trace = 0;
    for (std::int64_t i = 0; i < g; ++i) trace += block[static_cast<std::size_t>(i * (g + 1))];
    for (std::int64_t i = 0; i < g; ++i) {
      block[static_cast<std::size_t>(i * (g + 1))] += kRidge * trace / static_cast<double>(g);
    }
    factor(block.data(), g);
    for (std::int64_t i = 0; i < g * g; ++i) {
      blocks_[static_cast<std::size_t>(word * g * g + i)] = static_cast<float>(block[static_cast<std::size_t>(i)]);
    }
  }

  const Problem& p_;
  const Codes& codes_;
  Exec& exec_;
  Uses uses_;
  std::vector<float> blocks_;  ///< [K * entries, g, g]
};

}  // namespace

void fit_codebooks(const Problem& problem, const Codes& codes, std::int64_t steps, Codebooks& books, Exec& exec) {
  const Fit fit(problem, codes, books, exec);
  std::vector<float> rest = fit.gather(times_gram(problem, errors_of(problem, books, codes, exec.pool), exec));
  std::vector<float> z = fit.precondition(rest);
  Codebooks direction = books;
  direction.words = z;
  double size = dot(rest, z);
  const double enough = kEnough * size;
  for (std::int64_t step = 0; step < steps && size > enough; ++step) {
    const std::vector<float> product = fit.hessian_times(direction);
    const double curvature = dot(direction.words, product);
    if (!(curvature > 0)) return;
    const double length = size / curvature;
    add_scaled(length, direction.words, books.words);
    add_scaled(-length, product, rest);
    z = fit.precondition(rest);
    const double before = size;
    size = dot(rest, z);
    const auto keep = static_cast<float>(size / before);
    for (std::size_t i = 0; i < z.size(); ++i) direction.words[i] = z[i] + keep * direction.words[i];
  }
}

}  // namespace nibble::aqlm
