#include "quant/quanto/packed.h"

namespace nibble::quanto {

void unpack_row(const std::uint8_t* packed, std::int64_t rows, std::int64_t cols, std::int32_t bits, std::int64_t row,
                std::uint8_t* codes) {
  const std::int64_t height = packed_rows(rows, bits);
  const std::uint8_t* bytes = packed + row % height * cols;
  const auto shift = static_cast<std::int32_t>(row / height) * bits;
  const auto mask = static_cast<std::uint8_t>((1 << bits) - 1);
  for (std::int64_t c = 0; c < cols; ++c) codes[c] = static_cast<std::uint8_t>(bytes[c] >> shift & mask);
}

void or_codes(const std::uint8_t* codes, std::int64_t cols, std::int32_t shift, std::uint8_t* packed) {
  for (std::int64_t c = 0; c < cols; ++c) packed[c] = static_cast<std::uint8_t>(packed[c] | codes[c] << shift);
}

}  // namespace nibble::quanto
