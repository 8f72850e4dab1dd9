// The triangular factor of an inverse that GPTQ walks along: U upper triangular with H^-1 = U^T U.
#pragma once
#include <cstdint>
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

}  // namespace nibble
