// The nibble orders of AWQ's variants.
#pragma once
#include <array>
#include <cstdint>

#include "tensor/view.h"

namespace nibble::awq {

/// gemm: nibble i of a word holds column 8c + kGemmOrder[i] of its row.
inline constexpr std::array<int, 8> kGemmOrder{0, 2, 4, 6, 1, 3, 5, 7};

/// gemv_fast: within 32 inputs, position p holds input kFastOrder[p]: the pairs of four runs of eight, interleaved so
/// that a shift by 4 bits brings the next pair into place.
constexpr std::array<std::uint8_t, 32> fast_order() {
  std::array<std::uint8_t, 32> order{};
  // arange(32).reshape(4, 4, 2).transpose(1, 0, 2).reshape(4, 4, 2).transpose(0, 2, 1): pairs, then lanes of pairs.
  for (int block = 0; block < 4; ++block) {
    for (int lane = 0; lane < 2; ++lane) {
      for (int run = 0; run < 4; ++run) {
        order[static_cast<std::size_t>(block * 8 + lane * 4 + run)] =
            static_cast<std::uint8_t>(run * 8 + block * 2 + lane);
      }
    }
  }
  return order;
}
inline constexpr std::array<std::uint8_t, 32> kFastOrder = fast_order();

/// Where gemv_fast keeps a code of row n, input column position p (after kFastOrder): rows by four, inputs in runs of
/// 64, (row group, run, row in group, 64) read four nibbles per 16-bit word.
struct FastPlace {
  std::int64_t word;
  int shift;
};
inline FastPlace fast_place(std::int64_t row, std::int64_t position, std::int64_t cols) {
  const std::int64_t run = position / 64, in_run = position % 64;
  return {row / 4 * cols + run * 64 + row % 4 * 16 + in_run / 4, static_cast<int>(in_run % 4 * 4)};
}

/// Turns the sign of every f16: gemv_fast stores -(scale * zero), the layout subtracts a shift.
inline void flip_signs(Tensor& halves) {
  for (std::int64_t i = 1; i < 2 * halves.count(); i += 2) halves.data()[i] ^= std::byte{0x80};
}

}  // namespace nibble::awq
