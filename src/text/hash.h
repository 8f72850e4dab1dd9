// A fast hash of short byte strings and of integers, for the flat hash tables of this layer. Not keyed: tables built
// from untrusted files cost at most a linear probe more (see Vocabulary).
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nibble::text {

/// Mixes the halves of a 128-bit product: the step of wyhash.
inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t hash_integer(std::uint64_t value) {
  return mix(value ^ 0x9e3779b97f4a7c15ULL, 0xe7037ed1a0b428dbULL);
}

inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t k0 = 0xa0761d6478bd642fULL, k1 = 0xe7037ed1a0b428dbULL;
  const char* p = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t state = k0 ^ bytes.size();
  const auto load = [&](std::size_t count) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, count);
    return word;
  };
  for (; left > 8; left -= 8, p += 8) state = mix(state ^ load(8), k1);
  if (left == 8) return mix(mix(state ^ load(8), k1), k0);
  return mix(mix(state ^ load(left) ^ 0x5851f42d4c957f2dULL, k1), k0);
}

}  // namespace nibble::text
