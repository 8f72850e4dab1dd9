// Bit streams as GPTQ and others store them: b-bit codes, least significant bit first, cut into little-endian 32-bit
// words. 32 codes fill b words whatever the width, so a 3-bit code may straddle two words.
#pragma once
#include <cstdint>
#include <cstring>

#include "quant/common/packed_module.h"

namespace nibble {

inline constexpr std::int64_t kUnit = 32;  ///< codes that fill whole words at any width

/// Each 4-bit field of `word` in a byte of its own, in order.
inline std::uint64_t spread_nibbles(std::uint32_t word) {
  std::uint64_t x = word;
  x = (x | x << 16) & 0x0000FFFF0000FFFFULL;
  x = (x | x << 8) & 0x00FF00FF00FF00FFULL;
  return (x | x << 4) & 0x0F0F0F0F0F0F0F0FULL;
}

/// 32 codes from `bits` words that lie `stride` words apart.
inline void unpack_unit(const std::byte* words, std::int64_t stride, std::int32_t bits, std::uint8_t* codes) {
  if (bits == 4) {
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t eight = spread_nibbles(word_at(words, i * stride));
      std::memcpy(codes + 8 * i, &eight, sizeof eight);
    }
    return;
  }
  if (bits == 8) {
    for (int i = 0; i < 8; ++i) std::memcpy(codes + 4 * i, words + i * stride * 4, 4);
    return;
  }
  std::uint64_t held = 0;
  std::int32_t count = 0, next = 0;
  for (int i = 0; i < kUnit; ++i) {
    if (count < bits) {
      held |= static_cast<std::uint64_t>(word_at(words, next++ * stride)) << count;
      count += 32;
    }
    codes[i] = static_cast<std::uint8_t>(held & ((1U << bits) - 1));
    held >>= bits;
    count -= bits;
  }
}

/// Code `index` of a stream whose words lie `stride` words apart.
inline std::uint32_t code_in(const std::byte* words, std::int64_t stride, std::int32_t bits, std::int64_t index) {
  const std::int64_t bit = index * bits, word = bit / 32;
  const auto shift = static_cast<std::int32_t>(bit % 32);
  std::uint64_t held = word_at(words, word * stride);
  if (shift + bits > 32) held |= static_cast<std::uint64_t>(word_at(words, (word + 1) * stride)) << 32;
  return static_cast<std::uint32_t>(held >> shift) & ((1U << bits) - 1);
}

/// Puts a code into such a stream, whose bits are still zero there.
inline void put_code(std::uint32_t* words, std::int64_t stride, std::int32_t bits, std::int64_t index,
                     std::uint32_t code) {
  const std::int64_t bit = index * bits, word = bit / 32;
  const auto shift = static_cast<std::int32_t>(bit % 32);
  words[word * stride] |= code << shift;
  if (shift + bits > 32) words[(word + 1) * stride] |= code >> (32 - shift);
}

}  // namespace nibble
