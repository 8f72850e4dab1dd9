// The triangular factor of an inverse that GPTQ walks along: U upper triangular with H^-1 = U^T U.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "device/device.h"

namespace nibble {

/// c [m, n] = a [m, k] b^T, with b [n, k] contiguous, a and c with row strides lda and ldc. Sums in f32; the same bits
/// for any number of threads.
struct ProductArgs {
  const float* a = nullptr;
  std::int64_t m = 0, lda = 0;
  const float* b = nullptr;
  std::int64_t n = 0, k = 0;
  float* c = nullptr;
  std::int64_t ldc = 0;
};
void product_transposed(const ProductArgs& args, Exec& exec);

/// Replaces the symmetric matrix h [n, n] (row major, its lower triangle is read) by U [n, n], zeros below the
/// diagonal. Instead of factoring, inverting and factoring again, as GPTQ's code does, H is factored from its end
/// (H = R R^T, R upper) and R inverted: U = R^-1, the same matrix with half the work and less rounding. False, and h is
/// spoilt, when H is not positive definite in f32.
bool inverse_upper_factor(std::vector<float>& h, std::int64_t n, Exec& exec);

/// The mean of the diagonal of a matrix [n, n]; 0 for n = 0.
double mean_diagonal(std::span<const float> matrix, std::int64_t n);
void add_to_diagonal(std::span<float> matrix, std::int64_t n, float value);

/// What was added to a diagonal: `part` of its mean, which is `value`.
struct Damping {
  double part = 0;
  float value = 0;
};
/// inverse_upper_factor(h) with damp times the mean diagonal added to the diagonal first, `step` more (if positive)
/// while the matrix is not positive definite, up to 1. Empty, and h as it was, when nothing helped.
std::optional<Damping> damped_inverse_factor(std::vector<float>& h, std::int64_t n, double damp, double step,
                                             Exec& exec);

}  // namespace nibble
