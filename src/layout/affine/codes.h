// How codes of the affine layout lie in memory. A row is a sequence of blocks of 128 codes; the last block may hold 32,
// 64 or 96 (rows are padded with zero codes to a multiple of 32). b-bit codes are split into planes of 8, 4, 2 and 1
// bits (3 = 2 + 1, 5 = 4 + 1, ...; the widest plane holds the highest bits); a block stores its planes one after the
// other. A plane of p bits of a block of C codes is W = C * p / 32 little-endian 32-bit words, and code i is the field
// i / W (p bits wide, from the low end) of word i % W:
//
//   4 bits, C = 128:   word j = [ code j | code 16 + j | code 32 + j | ... | code 112 + j ]   j = 0..15 (64 bytes)
//   2 bits, C = 128:   word j = [ code j | code 8 + j | code 16 + j | ... | code 120 + j ]    j = 0..7 (32 bytes)
//
// so that a shift of a whole vector of words brings consecutive codes to consecutive 32-bit lanes.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

namespace nibble::affine {

static_assert(std::endian::native == std::endian::little, "words of codes are little endian");

inline constexpr std::int64_t kBlock = 128;
inline constexpr std::int64_t kUnit = 32;

inline std::int64_t padded_cols(std::int64_t cols) { return (cols + kUnit - 1) / kUnit * kUnit; }
/// Bytes of one row of codes.
inline std::int64_t row_bytes(std::int64_t cols, std::int32_t bits) { return padded_cols(cols) / 8 * bits; }

/// Calls f(width, shift) for the planes of `bits`-bit codes: bits [shift, shift + width) of a code.
template <class F>
void for_planes(std::int32_t bits, F&& f) {
  std::int32_t left = bits;
  for (const std::int32_t width : {8, 4, 2, 1}) {
    if (left >= width) {
      left -= width;
      f(width, left);
    }
  }
}

/// Codes of one block of `count` (a multiple of 32, at most 128) from `data`; gives the end of the block.
inline const std::uint8_t* unpack_block(const std::uint8_t* data, std::int64_t count, std::int32_t bits,
                                        std::uint8_t* codes) {
  std::fill_n(codes, count, std::uint8_t{0});
  for_planes(bits, [&](std::int32_t width, std::int32_t shift) {
    const std::int64_t words = count * width / 32;
    const std::uint32_t mask = (1U << width) - 1;
    for (std::int64_t j = 0; j < words; ++j) {
      std::uint32_t word;
      std::memcpy(&word, data + j * 4, 4);
      for (std::int64_t i = j; i < count; i += words, word >>= width) {
        codes[i] = static_cast<std::uint8_t>(codes[i] | (word & mask) << shift);
      }
    }
    data += words * 4;
  });
  return data;
}

/// A whole block of 4-bit codes, [128] to 64 bytes: byte b of word j is code 32 b + j, and code 32 b + 16 + j above it.
inline void pack_nibbles(const std::uint8_t* codes, std::uint8_t* data) {
  std::uint8_t pairs[4][16];
  for (int b = 0; b < 4; ++b) {
    for (int j = 0; j < 16; ++j)
      pairs[b][j] = static_cast<std::uint8_t>(codes[32 * b + j] | codes[32 * b + 16 + j] << 4);
  }
  for (int j = 0; j < 16; ++j) {
    for (int b = 0; b < 4; ++b) data[4 * j + b] = pairs[b][j];
  }
}

/// A whole block of 8-bit codes: byte b of word j is code 32 b + j.
inline void pack_bytes(const std::uint8_t* codes, std::uint8_t* data) {
  for (int j = 0; j < 32; ++j) {
    for (int b = 0; b < 4; ++b) data[4 * j + b] = codes[32 * b + j];
  }
}

/// The inverse of unpack_block.
inline std::uint8_t* pack_block(const std::uint8_t* codes, std::int64_t count, std::int32_t bits, std::uint8_t* data) {
  if (count == kBlock && (bits == 4 || bits == 8)) {
    bits == 4 ? pack_nibbles(codes, data) : pack_bytes(codes, data);
    return data + kBlock / 8 * bits;
  }
  for_planes(bits, [&](std::int32_t width, std::int32_t shift) {
    const std::int64_t words = count * width / 32;
    const std::uint32_t mask = (1U << width) - 1;
    for (std::int64_t j = 0; j < words; ++j) {
      std::uint32_t word = 0;
      for (std::int64_t i = j, at = 0; i < count; i += words, at += width) {
        word |= (static_cast<std::uint32_t>(codes[i]) >> shift & mask) << at;
      }
      std::memcpy(data + j * 4, &word, 4);
    }
    data += words * 4;
  });
  return data;
}

/// Rows of words turned together, lane by lane.
inline constexpr int kLanes = 16;
template <int kWords>
using WordLanes = std::uint32_t[kWords][kLanes];

/// Field j (of `kBits` bits) of word i becomes field i of word j.
template <int kBits>
void turn_fields(WordLanes<32 / kBits>& words) {
  constexpr int kWords = 32 / kBits;
  constexpr std::uint32_t kMasks[3] = {0x0000FFFF, 0x00FF00FF, 0x0F0F0F0F};
  int step = 0;
  for (int distance = kWords / 2; distance > 0; distance /= 2, ++step) {
    const int shift = distance * kBits;
    for (int i = 0; i < kWords; ++i) {
      if ((i & distance) != 0) continue;
      for (int lane = 0; lane < kLanes; ++lane) {
        const std::uint32_t moved = (words[i][lane] >> shift ^ words[i + distance][lane]) & kMasks[step];
        words[i + distance][lane] ^= moved;
        words[i][lane] ^= moved << shift;
      }
    }
  }
}

/// Whole blocks of kLanes rows, from words of consecutive codes (words[w * stride + lane]) to the layout: rows go to
/// data, data + row_bytes, ... as many as `rows`.
template <int kBits>
void pack_word_lanes(const std::uint32_t* words, std::int64_t stride, std::int64_t rows, std::uint8_t* data,
                     std::int64_t row_bytes) {
  constexpr int kWords = 32 / kBits;         // codes of a word, and fields of a plane's word
  constexpr int kSets = 4 * kBits / kWords;  // a block has 4 * kBits words; word (kSets * f + q) has codes of field f
  for (int q = 0; q < kSets; ++q) {
    WordLanes<kWords> set;
    for (int f = 0; f < kWords; ++f) std::memcpy(set[f], words + (kSets * f + q) * stride, sizeof set[f]);
    turn_fields<kBits>(set);
    for (std::int64_t r = 0; r < rows; ++r) {
      std::uint32_t out[kWords];
      for (int j = 0; j < kWords; ++j) out[j] = set[j][r];
      std::memcpy(data + r * row_bytes + q * kWords * 4, out, sizeof out);
    }
  }
}

}  // namespace nibble::affine
