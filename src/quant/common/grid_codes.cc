#include "quant/common/grid_codes.h"

#include <algorithm>
#include <numeric>

#include "layout/affine/affine.h"

namespace nibble {
namespace {

/// Columns by group, each group in input order: what the affine layout holds. Empty when groups are consecutive.
std::vector<std::int32_t> stored_order(const std::vector<std::int32_t>& g_idx) {
  if (std::is_sorted(g_idx.begin(), g_idx.end())) return {};
  std::vector<std::int32_t> order(g_idx.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return g_idx[static_cast<std::size_t>(a)] < g_idx[static_cast<std::size_t>(b)];
  });
  return order;
}

}  // namespace

QTensor pack_grid(const GridCodes& grid, std::int64_t rows, std::int32_t bits, std::int64_t group, Exec& exec) {
  const auto cols = static_cast<std::int64_t>(grid.g_idx.size());
  const std::vector<std::int32_t> order = stored_order(grid.g_idx);
  affine::Parts parts{.rows = rows,
                      .cols = cols,
                      .group = group,
                      .bits = bits,
                      .offset_kind = affine::Offset::zero_point,
                      .dtype = DType::f32,
                      .scale = Tensor({rows, grid.groups}, DType::f16),
                      .offset = Tensor({rows, grid.groups}, DType::f16),
                      .order = {}};
  convert_from_f32(DType::f16, grid.scale.data(), parts.scale.data(), rows * grid.groups);
  convert_from_f32(DType::f16, grid.zero.data(), parts.offset.data(), rows * grid.groups);
  if (!order.empty()) parts.order = Tensor(View(order.data(), {cols}, DType::i32));
  return affine::pack_blocks(
      std::move(parts),
      [&](const affine::CodeBlock& block) {
        for (std::int64_t r = 0; r < block.rows; ++r) {
          const std::uint8_t* from = grid.codes.data() + (block.row0 + r) * cols;
          for (std::int64_t i = 0; i < block.cols; ++i) {
            const std::int64_t k = block.col0 + i;
            block.codes[r * affine::kBlockCols + i] = from[order.empty() ? k : order[static_cast<std::size_t>(k)]];
          }
        }
      },
      exec);
}

}  // namespace nibble
