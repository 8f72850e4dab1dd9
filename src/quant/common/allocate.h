// A budget spread over many parts, each of which offers sizes at costs: bits over the weights of a model.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace nibble {

struct SizeChoice {
  std::int64_t bytes = 0;  ///< >= 0
  double cost = 0;         ///< finite
};

/// The choice of every part (an index) with the least sum of costs whose sum of bytes is at most `budget`; of equal
/// sums the one with less bytes for the last part, then for those before it. Exact where differences of sizes share a
/// divisor that is not tiny, as those of a model's weights do; else sizes are rounded up a little, never past the
/// budget. Empty when even the smallest choices are too large.
std::vector<std::size_t> allocate(std::span<const std::vector<SizeChoice>> parts, std::int64_t budget);

}  // namespace nibble
