// Integer codes of a weight on affine grids: what solvers make and formats store.
#pragma once
#include <cstdint>
#include <vector>

#include "layout/layout.h"

namespace nibble {

/// Of a weight [rows, cols]: value = scale * (code - zero) of the code's group.
struct GridCodes {
  std::vector<std::uint8_t> codes;  ///< [rows, cols], inputs in their own order
  std::vector<float> scale, zero;   ///< [rows, groups]
  std::vector<std::int32_t> g_idx;  ///< [cols]: the group of each input
  std::int64_t groups = 0;
};

/// The affine layout of codes below 2^bits in groups of `group` inputs, scales and zero points in f16. Inputs whose
/// groups are not consecutive get the layout's order.
QTensor pack_grid(const GridCodes& grid, std::int64_t rows, std::int32_t bits, std::int64_t group, Exec& exec);

}  // namespace nibble
