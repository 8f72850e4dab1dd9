// Lowers the loss tr((W - Q) G (W - Q)') of a weight that has codes already, without leaving its grid: codes, scales
// and integer zero points are moved one at a time, each to its optimum while all others stay (coordinate descent). The
// start may be any: GPTQ, which quantizes each column once and never comes back to it, gains most at 2 and 3 bits.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "device/device.h"
#include "quant/common/grid_codes.h"

namespace nibble {

struct RefineOptions {
  std::int32_t bits = 4;    ///< codes stay below 2^bits
  std::int32_t passes = 4;  ///< over all codes, then all scales
  bool move_zeros = true;   ///< else zero points stay (symmetric grids)
  double damp = 0.01;       ///< of the mean diagonal, added to the diagonal of the matrix
};

/// The loss before and after, with the damping's part.
struct RefineLoss {
  double before = 0, after = 0;
};

/// `weight` [rows, cols] finite f32; `gram` [cols, cols] symmetric. Scales become values that f16 holds, as the formats
/// store them (also when passes is 0). The loss never rises but by that rounding of the first scales. The same result
/// for any number of threads.
RefineLoss refine_grid(std::span<const float> weight, std::int64_t rows, std::span<const float> gram,
                       const RefineOptions& options, GridCodes& grid, Exec& exec);

}  // namespace nibble
