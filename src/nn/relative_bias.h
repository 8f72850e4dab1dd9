// T5's relative position bias (Raffel et al. 2020, arXiv:1910.10683): a learned number per head and bucket of
// distances, added to attention scores. Near distances have a bucket each, far ones share buckets that grow with the
// logarithm.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/pass.h"

namespace nibble::nn {

struct RelativeBias {
  std::int64_t heads = 0;
  std::int64_t buckets = 32;        ///< even, at least 4
  std::int64_t max_distance = 128;  ///< more than buckets / 2; from it on all distances share the last bucket
  bool both_ways = true;            ///< half of the buckets are for keys behind the query; false: those get bucket 0
  std::vector<float> weight;        ///< [buckets, heads]

  /// The bucket of distance = key position - query position, computed in the f32 steps of Transformers
  /// (T5Attention._relative_position_bucket), so that distances on the edge of a bucket fall on the same side.
  std::int64_t bucket(std::int64_t distance) const;

  /// The bias for distances from -(kv_rows - 1) to q_rows - 1, in exec.arena.
  DistanceBias table(std::int64_t kv_rows, std::int64_t q_rows, Exec& exec) const;
};

}  // namespace nibble::nn
