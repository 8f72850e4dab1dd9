// Passes over all groups of inputs that choose codes for given codebooks. Rows are independent, so every pass gives the
// same codes for any number of threads.
#pragma once
#include <cstdint>
#include <vector>

#include "quant/aqlm/additive.h"
#include "quant/aqlm/group_search.h"

namespace nibble::aqlm {

/// Group after group, in order, gets the best words for the others as they are; no row's error rises. `errors` [rows,
/// cols] is T - u before and after. Returns how many groups changed.
std::int64_t improve_codes(const Problem& problem, const GroupSearch& search, const Codebooks& books, Codes& codes,
                           std::vector<float>& errors, Exec& exec);

/// How the errors of the groups before can be made up for by the groups that follow: GPTQ's factor of the inverse Gram
/// matrix, cut into groups (GPTVQ, van Baalen et al. 2024).
class ErrorFeedback {
 public:
  /// `damp` of the mean diagonal is added to the diagonal.
  ErrorFeedback(const Problem& problem, double damp, Exec& exec);
  /// False: the matrix has no inverse in f32.
  bool usable() const { return usable_; }

  const float* factor() const { return factor_.data(); }  ///< U [cols, cols], upper triangular, G^-1 = U'U
  Metric metric(std::int64_t group) const;                ///< what an error costs when the rest adapts
  const float* inverse(std::int64_t group) const;         ///< of the factor's diagonal block, [dims, dims]

 private:
  std::int64_t dims_ = 0;
  bool usable_ = false;
  std::vector<float> factor_, metrics_, inverses_;
};

/// Chooses all codes anew, group after group: the targets of those that follow move so as to make up for the errors so
/// far. Often lower in error than what improve_codes() finds from elsewhere, but not always.
Codes codes_with_feedback(const Problem& problem, const ErrorFeedback& feedback, const GroupSearch& search,
                          const Codebooks& books, Exec& exec);

}  // namespace nibble::aqlm
