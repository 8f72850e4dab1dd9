// Quanto's PackedTensor: codes of 2 or 4 bits in bytes. With R rows in all and P = 8 / bits codes per byte, the packed
// tensor has H = ceil(R / P) rows, and row r of it holds rows r, H + r, 2H + r, ... from the low bits upwards:
//
//   int4, R = 6:   byte[r, c] = code[r, c] | code[3 + r, c] << 4                r = 0..2
//   int4, R = 5:   the same with H = 3; the high half of the last row is 0
#pragma once
#include <cstdint>

#include "base/thread_pool.h"

namespace nibble::quanto {

inline std::int64_t packed_rows(std::int64_t rows, std::int32_t bits) { return (rows + 8 / bits - 1) / (8 / bits); }

/// Row `row` of `rows` rows of `cols` codes, from packed bytes.
void unpack_row(const std::uint8_t* packed, std::int64_t rows, std::int64_t cols, std::int32_t bits, std::int64_t row,
                std::uint8_t* codes);

/// packed[c] |= codes[c] << shift.
void or_codes(const std::uint8_t* codes, std::int64_t cols, std::int32_t shift, std::uint8_t* packed);

}  // namespace nibble::quanto
