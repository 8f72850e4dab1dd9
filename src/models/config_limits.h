// Limits of config fields. Nothing real comes near these; they keep absurd files from asking for absurd memory.
#pragma once
#include <cstdint>

namespace nibble::models {

inline constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
inline constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxLayers = 4096;
inline constexpr std::int64_t kMaxHeads = 1 << 14;
inline constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;

}  // namespace nibble::models
