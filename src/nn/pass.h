// What one pass through the blocks computes: new positions of several sequences, row after row.
#pragma once
#include <cstdint>
#include <span>

#include "device/device.h"
#include "nn/kv_cache.h"

namespace nibble::nn {

struct PassSeq {
  std::int64_t sequence = 0;   ///< its number in the cache
  std::int64_t first_row = 0;  ///< its rows in the pass
  std::int64_t rows = 0;
  std::int64_t past = 0;  ///< positions already in the cache
};

/// What attention adds to scores by distance, laid out as AttentionArgs::distance_bias.
struct DistanceBias {
  const float* values = nullptr;  ///< null: nothing
  std::int64_t stride = 0, origin = 0;
};

struct Pass {
  std::int64_t rows = 0;  ///< of all sequences
  std::span<const PassSeq> seqs;
  RopeTable rope;  ///< one row per row of the pass; cos is null when positions are not rotary
  /// Null: nothing is kept, and every position sees all of its sequence (encoders; all pasts are 0).
  KvCache* cache = nullptr;
  DistanceBias bias;
};

}  // namespace nibble::nn
