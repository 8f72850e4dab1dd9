// Attention over tiles of 64 positions with a streaming softmax (FlashAttention, arXiv:2205.14135): what one task
// computes.
#pragma once
#include <algorithm>

#include "device/device.h"

namespace nibble::cpu {

inline constexpr std::int64_t kTile = 64;

/// Head dimensions are padded with zeros to a multiple of this.
inline std::int64_t padded_dim(std::int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// Up to kQueries query rows of one head or of the heads that share a kv head, attending to one kv head of a sequence.
inline constexpr std::int64_t kQueries = 16;

struct QueryRow {
  const float* q;  ///< [head_dim]
  float* out;      ///< [head_dim]
  std::int64_t position;
  std::int64_t begin, end;  ///< visible positions
  float alibi;              ///< slope, 0 without ALiBi
  const float* bias;        ///< of key position 0, those of the others follow; null: none
};

struct AttentionTask {
  const AttentionSeq* seq;
  const AttentionArgs* args;
  std::int64_t kv_head;
  const QueryRow* queries;
  std::int64_t count;
  /// Packed tiles of this kv head (keys [dim, 64], then values [64, dim], f32), or null: then read the pages.
  const float* packed;
  float* scratch;  ///< task_floats(head_dim)
};

inline std::int64_t tile_floats(std::int64_t head_dim) { return 2 * kTile * padded_dim(head_dim); }
inline std::int64_t task_floats(std::int64_t head_dim) {
  return tile_floats(head_dim) + kQueries * (2 * padded_dim(head_dim) + kTile + 16);
}

/// The range of positions that row `q_row` of `seq` sees.
inline void visible(const AttentionSeq& seq, const AttentionArgs& args, std::int64_t q_row, QueryRow& to) {
  to.position = seq.kv_rows - seq.q_rows + q_row;
  to.end = args.causal ? to.position + 1 : seq.kv_rows;
  to.begin =
      args.causal && args.sliding_window > 0 ? std::max<std::int64_t>(0, to.position + 1 - args.sliding_window) : 0;
}

}  // namespace nibble::cpu
