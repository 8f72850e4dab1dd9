// Random orthogonal matrices that are quick to apply: a Hadamard matrix with random signs spreads every large value
// over all others, which is what makes rotated weights easy to quantize (QuIP#, arXiv:2402.04396, section 3; QuaRot,
// arXiv:2404.00456).
#pragma once
#include <cstdint>
#include <vector>

namespace nibble {

/// R = (H (x) Q) D for any size n = 2^k m with m odd: D random signs, H the Hadamard matrix of size 2^k by Sylvester
/// over sqrt(2^k), Q a random orthogonal matrix of size m ([1] where n is a power of two). R R' = I up to rounding in
/// f64. All of it follows from the seed alone.
class RandomHadamard {
 public:
  /// size >= 1. Takes m^3 operations.
  RandomHadamard(std::int64_t size, std::uint64_t seed);

  std::int64_t size() const { return size_; }

  /// Numbers that apply() needs to work in.
  std::int64_t scratch_size(std::int64_t width) const { return odd_ == 1 ? 0 : odd_ * width; }

  /// x := R x for every column of x [size, width], row major; a vector is one column. width * (k + m) operations for
  /// each row.
  void apply(double* x, std::int64_t width, double* scratch) const;

 private:
  void apply_odd(double* x, std::int64_t width, double* scratch) const;

  std::int64_t size_, odd_;
  std::vector<double> signs_;     ///< [size], the scale of H included
  std::vector<double> odd_part_;  ///< Q [m, m], row major
};

}  // namespace nibble
