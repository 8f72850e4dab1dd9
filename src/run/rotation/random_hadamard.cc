#include "run/rotation/random_hadamard.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace nibble {
namespace {

double dot(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Rows of independent normal numbers made orthonormal one after the other: uniform among all orthogonal matrices.
std::vector<double> random_orthogonal(std::int64_t n, Rng& rng) {
  std::vector<double> rows(static_cast<std::size_t>(n * n));
  for (double& value : rows) value = rng.normal();
  for (std::int64_t i = 0; i < n; ++i) {
    double* row = rows.data() + i * n;
    // Twice is enough: what the first round leaves by rounding, the second removes.
    for (int round = 0; round < 2; ++round) {
      for (std::int64_t j = 0; j < i; ++j) {
        const double* other = rows.data() + j * n;
        const double along = dot(row, other, n);
        for (std::int64_t k = 0; k < n; ++k) row[k] -= along * other[k];
      }
      const double scale = 1 / std::sqrt(dot(row, row, n));
      for (std::int64_t k = 0; k < n; ++k) row[k] *= scale;
    }
  }
  return rows;
}

}  // namespace

RandomHadamard::RandomHadamard(std::int64_t size, std::uint64_t seed) : size_(size), odd_(size) {
  check(size >= 1, "RandomHadamard: no size");
  while (odd_ % 2 == 0) odd_ /= 2;
  Rng rng(seed);
  const double scale = 1 / std::sqrt(static_cast<double>(size_ / odd_));
  signs_.reserve(static_cast<std::size_t>(size_));
  for (std::int64_t i = 0; i < size_; ++i) signs_.push_back(rng.next() >> 63 != 0 ? -scale : scale);
  if (odd_ > 1) odd_part_ = random_orthogonal(odd_, rng);
}

void RandomHadamard::apply(double* x, std::int64_t width, double* scratch) const {
  for (std::int64_t row = 0; row < size_; ++row) {
    double* values = x + row * width;
    for (std::int64_t i = 0; i < width; ++i) values[i] *= signs_[static_cast<std::size_t>(row)];
  }
  if (odd_ > 1) apply_odd(x, width, scratch);
  const std::int64_t all = size_ * width;
  for (std::int64_t half = odd_ * width; half < all; half *= 2) {
    for (std::int64_t first = 0; first < all; first += 2 * half) {
      double *a = x + first, *b = a + half;
      for (std::int64_t i = 0; i < half; ++i) {
        const double sum = a[i] + b[i], difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
}

void RandomHadamard::apply_odd(double* x, std::int64_t width, double* scratch) const {
  for (double* block = x; block < x + size_ * width; block += odd_ * width) {
    std::copy_n(block, odd_ * width, scratch);
    for (std::int64_t row = 0; row < odd_; ++row) {
      double* out = block + row * width;
      std::fill_n(out, width, 0.0);
      for (std::int64_t j = 0; j < odd_; ++j) {
        const double factor = odd_part_[static_cast<std::size_t>(row * odd_ + j)];
        for (std::int64_t i = 0; i < width; ++i) out[i] += factor * scratch[j * width + i];
      }
    }
  }
}

}  // namespace nibble
