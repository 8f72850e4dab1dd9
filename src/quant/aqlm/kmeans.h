// Residual k-means: where AQLM's codebooks and codes start.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"

namespace nibble::aqlm {

struct KMeansOptions {
  std::int64_t entries = 256;         ///< words, at least 1
  std::int64_t iterations = 100;      ///< at most
  std::int64_t points_per_entry = 0;  ///< a random sample of so many points per word chooses the words; 0: all points
};

struct KMeans {
  std::vector<float> words;         ///< [entries, dims]
  std::vector<std::int32_t> codes;  ///< [points]: the nearest word
};

/// Lloyd's iteration on `points` [n, dims] finite f32 with one weight each (not negative), from random distinct rows:
/// words become the weighted mean of the points nearest to them; a word that no point is nearest to moves to a random
/// point. Ends early when no code changes. With no more points than words every
/// point is a word, the rest stays zero. The same result for any
/// number of threads; `rng` decides what is random.
KMeans kmeans(std::span<const float> points, std::span<const float> weights, std::int64_t dims,
              const KMeansOptions& options, Rng& rng, ThreadPool& pool);

}  // namespace nibble::aqlm
