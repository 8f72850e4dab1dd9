// The loops that read memory; included by sources compiled for different instruction sets, so all is internal to each.
#pragma once
#include <cstddef>
#include <cstdint>

namespace nibble::bench {
namespace {

constexpr std::size_t kLine = 64;
typedef std::uint64_t Line __attribute__((vector_size(kLine), aligned(kLine)));

struct Pattern {
  int streams;
  int prefetch;  ///< bytes ahead, 0: none
};
constexpr Pattern kPatterns[] = {{1, 0},    {1, 512}, {1, 1024}, {1, 2048}, {2, 0},
                                 {2, 1024}, {4, 0},   {4, 1024}, {8, 0},    {8, 1024}};

/// Reads [begin, end) as `kStreams` interleaved streams.
template <int kStreams>
std::uint64_t read_streams(const char* begin, std::size_t bytes, int prefetch) {
  const std::size_t part = bytes / kStreams / (4 * kLine) * (4 * kLine);
  Line sums[4] = {};
  for (std::size_t i = 0; i < part; i += 4 * kLine / (kStreams >= 4 ? 4 : 1)) {
    for (int s = 0; s < kStreams; ++s) {
      const char* at = begin + static_cast<std::size_t>(s) * part + i;
      const int lines = kStreams >= 4 ? 1 : 4;
      for (int l = 0; l < lines; ++l) {
        if (prefetch != 0) __builtin_prefetch(at + l * static_cast<int>(kLine) + prefetch);
        sums[(s + l) % 4] ^= *reinterpret_cast<const Line*>(at + static_cast<std::size_t>(l) * kLine);
      }
    }
  }
  const Line all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  return all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
}

std::uint64_t read_with(const Pattern& p, const char* begin, std::size_t bytes) {
  switch (p.streams) {
    case 1: return read_streams<1>(begin, bytes, p.prefetch);
    case 2: return read_streams<2>(begin, bytes, p.prefetch);
    case 4: return read_streams<4>(begin, bytes, p.prefetch);
    default: return read_streams<8>(begin, bytes, p.prefetch);
  }
}

}  // namespace
}  // namespace nibble::bench
