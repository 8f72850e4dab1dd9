// The best words for one group of inputs while all other groups stay as they are.
#pragma once
#include <cstdint>
#include <vector>

#include "quant/aqlm/additive.h"
#include "quant/aqlm/nearest.h"

namespace nibble::aqlm {

/// A positive semidefinite matrix [dims, dims] with row stride `stride`.
struct Metric {
  const float* data = nullptr;
  std::int64_t stride = 0;
};

/// Minimizes 1/2 u'Hu - p'u over sums u of one word from each codebook. With one codebook exactly; with more by beam
/// search from the first codebook to the last, then by choosing each word anew for the others while that helps.
class GroupSearch {
 public:
  /// `beam`: partial sums kept between two codebooks, at least 1.
  GroupSearch(const Codebooks& books, std::int64_t beam);

  /// Floats that `half` of a metric takes.
  std::int64_t half_size() const { return static_cast<std::int64_t>(tables_.size()) * tables_.front().padded; }
  /// What a metric has to say about the words alone: once per metric, for any number of rows.
  void prepare(Metric h, float* half) const;

  struct Job {
    Metric h;
    const float* half = nullptr;    ///< from prepare(h)
    const float* points = nullptr;  ///< p: [count, dims]
    std::int64_t count = 0;
    std::int32_t* codes = nullptr;  ///< in: the words now; out: better ones, where there are any
    std::int64_t stride = 0;        ///< from the codes of one point to those of the next
    bool keep = true;               ///< false: what `codes` holds says nothing
  };
  /// Memory of one thread.
  struct Scratch {
    std::vector<float> values, points[2], totals[2], found;
    std::vector<std::int32_t> codes[2], index;
    std::vector<std::int64_t> order;
  };
  void run(const Job& job, Scratch& scratch) const;

 private:
  void run_one_book(const Job& job, Scratch& scratch) const;
  void run_point(const Job& job, std::int64_t point, Scratch& scratch) const;
  std::int64_t widen(const Job& job, std::int64_t k, std::int64_t hypotheses, Scratch& scratch) const;
  void finish(const Job& job, std::int64_t hypotheses, Scratch& scratch) const;
  void choose_again(const Job& job, const float* point, std::int32_t* codes, Scratch& scratch) const;
  double value_of(const Job& job, const float* point, const std::int32_t* codes) const;
  void subtract(const Job& job, std::int64_t k, std::int32_t code, const float* from, float* to) const;

  const Codebooks& books_;
  std::int64_t beam_;
  std::vector<WordTable> tables_;
};

}  // namespace nibble::aqlm
