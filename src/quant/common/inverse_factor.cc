#include "quant/common/inverse_factor.h"

#include <algorithm>
#include <cmath>

#include "layout/dense/dense.h"

namespace nibble {
namespace {

constexpr std::int64_t kBlock = 128;

/// A square matrix being worked on.
struct Square {
  float* data;
  std::int64_t n;
  float& operator()(std::int64_t row, std::int64_t col) const { return data[row * n + col]; }
  float* row(std::int64_t index) const { return data + index * n; }
};

/// Cholesky factor of the diagonal block at `at`, in place, in double.
bool factor_diagonal(const Square& a, std::int64_t at, std::int64_t size) {
  for (std::int64_t j = 0; j < size; ++j) {
    const float* rj = a.row(at + j) + at;
    double pivot = static_cast<double>(rj[j]);
    for (std::int64_t k = 0; k < j; ++k) pivot -= static_cast<double>(rj[k]) * static_cast<double>(rj[k]);
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    const double root = std::sqrt(pivot);
    a(at + j, at + j) = static_cast<float>(root);
    for (std::int64_t i = j + 1; i < size; ++i) {
      float* ri = a.row(at + i) + at;
      double sum = static_cast<double>(ri[j]);
      for (std::int64_t k = 0; k < j; ++k) sum -= static_cast<double>(ri[k]) * static_cast<double>(rj[k]);
      ri[j] = static_cast<float>(sum / root);
    }
  }
  return true;
}

/// The columns [at, at + size) below the diagonal block: X L^T = A.
void solve_panel(const Square& a, std::int64_t at, std::int64_t size, ThreadPool& pool) {
  const std::int64_t first = at + size;
  pool.run(a.n - first, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* x = a.row(first + row) + at;
      for (std::int64_t j = 0; j < size; ++j) {
        const float* l = a.row(at + j) + at;
        double sum = static_cast<double>(x[j]);
        for (std::int64_t k = 0; k < j; ++k) sum -= static_cast<double>(x[k]) * static_cast<double>(l[k]);
        x[j] = static_cast<float>(sum / static_cast<double>(l[j]));
      }
    }
  });
}

/// Subtracts the panel's product with itself from the lower triangle after it, a strip of rows at a time.
void update_rest(const Square& a, std::int64_t at, std::int64_t size, Exec& exec) {
  constexpr std::int64_t kStrip = 512;
  const std::int64_t first = at + size, rest = a.n - first;
  if (rest == 0) return;
  std::vector<float> panel(static_cast<std::size_t>(rest * size));
  for (std::int64_t i = 0; i < rest; ++i) std::copy_n(a.row(first + i) + at, size, panel.data() + i * size);
  std::vector<float> product(static_cast<std::size_t>(std::min(kStrip, rest) * rest));
  for (std::int64_t top = 0; top < rest; top += kStrip) {
    const std::int64_t rows = std::min(kStrip, rest - top), cols = top + rows;
    product_transposed({panel.data() + top * size, rows, size, panel.data(), cols, size, product.data(), cols}, exec);
    exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        float* to = a.row(first + top + i) + first;
        const float* from = product.data() + i * cols;
        for (std::int64_t j = 0; j < cols; ++j) to[j] -= from[j];
      }
    });
  }
}

bool cholesky(const Square& a, Exec& exec) {
  for (std::int64_t at = 0; at < a.n; at += kBlock) {
    const std::int64_t size = std::min(kBlock, a.n - at);
    if (!factor_diagonal(a, at, size)) return false;
    solve_panel(a, at, size, exec.pool);
    update_rest(a, at, size, exec);
  }
  return true;
}

/// y [size, cols] (row stride `cols`) becomes L^-1 y for the diagonal block L at `at`.
void solve_rows(const Square& l, std::int64_t at, std::int64_t size, std::vector<float>& y, std::int64_t cols,
                ThreadPool& pool) {
  pool.run(cols, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = 0; r < size; ++r) {
      float* to = y.data() + r * cols;
      for (std::int64_t s = 0; s < r; ++s) {
        const float factor = l(at + r, at + s);
        const float* from = y.data() + s * cols;
        for (std::int64_t j = begin; j < end; ++j) to[j] -= factor * from[j];
      }
      const float pivot = l(at + r, at + r);
      for (std::int64_t j = begin; j < end; ++j) to[j] /= pivot;
    }
  });
}

/// The transpose of the inverse of the lower triangle of `l`.
std::vector<float> transposed_inverse(const Square& l, Exec& exec) {
  const std::int64_t n = l.n;
  std::vector<float> out(static_cast<std::size_t>(n * n)), before, y;
  for (std::int64_t at = 0; at < n; at += kBlock) {
    const std::int64_t size = std::min(kBlock, n - at), cols = at + size;
    y.assign(static_cast<std::size_t>(size * cols), 0);
    if (at > 0) {
      before.resize(static_cast<std::size_t>(at * at));
      for (std::int64_t i = 0; i < at; ++i) std::copy_n(out.data() + i * n, at, before.data() + i * at);
      product_transposed({l.row(at), size, n, before.data(), at, at, y.data(), cols}, exec);
    }
    for (float& value : y) value = -value;
    for (std::int64_t r = 0; r < size; ++r) y[static_cast<std::size_t>(r * cols + at + r)] = 1;
    solve_rows(l, at, size, y, cols, exec.pool);
    exec.pool.run(cols, 16, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t j = begin; j < end; ++j) {
        for (std::int64_t r = 0; r < size; ++r)
          out[static_cast<std::size_t>(j * n + at + r)] = y[static_cast<std::size_t>(r * cols + j)];
      }
    });
  }
  return out;
}

/// to[i][j] = from[n-1-i][n-1-j], or of the transposed matrix.
void reverse(const float* from, std::int64_t n, bool transposed, float* to, ThreadPool& pool) {
  const std::int64_t down = transposed ? -1 : -n, right = transposed ? -n : -1;
  pool.run(n, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* at = from + (n * n - 1) + i * down;
      for (std::int64_t j = 0; j < n; ++j) to[i * n + j] = at[j * right];
    }
  });
}

}  // namespace

void product_transposed(const ProductArgs& args, Exec& exec) {
  const QTensor w = dense::make(View(args.b, {args.n, args.k}, DType::f32), nullptr);
  Exec plain{.target = Target::cpu, .pool = exec.pool, .arena = exec.arena, .compute = DType::f32};
  matmul(w, {.x = args.a, .m = args.m, .ldx = args.lda, .y = args.c, .ldy = args.ldc}, plain);
}

bool inverse_upper_factor(std::vector<float>& h, std::int64_t n, Exec& exec) {
  check(static_cast<std::int64_t>(h.size()) == n * n, "inverse_upper_factor: size");
  std::vector<float> reversed(h.size());
  // Reading H^T keeps to the lower triangle: entry (i, j) of the reversal, j <= i, is H(n-1-j, n-1-i).
  reverse(h.data(), n, true, reversed.data(), exec.pool);
  const Square l{reversed.data(), n};
  if (!cholesky(l, exec)) return false;
  const std::vector<float> inverse = transposed_inverse(l, exec);
  reverse(inverse.data(), n, true, h.data(), exec.pool);
  return true;
}

double mean_diagonal(std::span<const float> matrix, std::int64_t n) {
  double sum = 0;
  for (std::int64_t k = 0; k < n; ++k) sum += static_cast<double>(matrix[static_cast<std::size_t>(k * (n + 1))]);
  return sum / static_cast<double>(std::max<std::int64_t>(n, 1));
}

void add_to_diagonal(std::span<float> matrix, std::int64_t n, float value) {
  for (std::int64_t k = 0; k < n; ++k) matrix[static_cast<std::size_t>(k * (n + 1))] += value;
}

std::optional<Damping> damped_inverse_factor(std::vector<float>& h, std::int64_t n, double damp, double step,
                                             Exec& exec) {
  const double mean = mean_diagonal(h, n);
  const std::vector<float> original = h;
  for (; damp <= 1; damp += step) {
    const Damping damping{damp, static_cast<float>(damp * mean)};
    add_to_diagonal(h, n, damping.value);
    if (inverse_upper_factor(h, n, exec)) return damping;
    h = original;
    if (step <= 0) break;
  }
  return std::nullopt;
}

}  // namespace nibble
