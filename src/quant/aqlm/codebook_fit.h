// The best words for given codes. The error is quadratic in all words together, so conjugate gradients with the exact
// product of the Hessian need a few steps where the original takes hundreds of Adam steps.
#pragma once
#include <cstdint>

#include "quant/aqlm/additive.h"

namespace nibble::aqlm {

/// Moves `books` towards the least squares solution of sum over rows of row_weight * (T - u) G (T - u)' for the codes;
/// at most `steps` products with the Hessian. Words that no code names stay. The error never rises (to rounding).
void fit_codebooks(const Problem& problem, const Codes& codes, std::int64_t steps, Codebooks& books, Exec& exec);

}  // namespace nibble::aqlm
