// Which word of a codebook is best: the vectorized inner loops of AQLM's k-means and code search.
//
// Both minimize, over the words c of a codebook, the quadratic  1/2 c'Hc - p'c  : for k-means H is the unit matrix and
// p the point itself; for codes H is a block of the inputs' Gram matrix. What depends on c alone, 1/2 c'Hc, is computed
// once and shared by all points.
#pragma once
#include <cstdint>
#include <vector>

namespace nibble::aqlm {

/// The words of one codebook, component by component, so that one SIMD vector holds one component of several words.
struct WordTable {
  /// `words` [entries, dims] f32, finite.
  WordTable(const float* words, std::int64_t entries, std::int64_t dims);
  std::int64_t entries = 0, dims = 0;
  std::int64_t padded = 0;   ///< entries up to a whole number of the widest vectors; the words added are zeros
  std::vector<float> words;  ///< [dims, padded]
};

/// half[e] = 1/2 c_e' H c_e for every word, and the largest float for words that only pad. `h` [dims, dims] symmetric,
/// row stride ldh. `half` [padded].
void half_norms(const WordTable& table, const float* h, std::int64_t ldh, float* half);

/// For each of `count` points p (rows of `points` [count, dims]): the word with the lowest half - p'c, the first among
/// equals, and that value.
struct Nearest {
  const WordTable* table = nullptr;
  const float* half = nullptr;    ///< [padded]
  const float* points = nullptr;  ///< [count, dims]
  std::int64_t count = 0;
  std::int32_t* index = nullptr;  ///< [count]
  float* value = nullptr;         ///< [count]
};
void nearest(const Nearest& job);

/// half - p'c of every word, for one point. `values` [padded].
void all_values(const WordTable& table, const float* half, const float* point, float* values);

/// The `count` lowest of `values` [padded], lowest first, the first among equals; spoils `values`. `count` at most the
/// number of entries.
void take_lowest(float* values, std::int64_t padded, std::int64_t count, std::int32_t* index, float* value);

}  // namespace nibble::aqlm
