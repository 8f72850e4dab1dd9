// Sparse mixture of experts (Mixtral, arXiv:2401.04088): each token runs through the few MLPs that a router scores
// highest, and their outputs are summed, weighted by the softmax of those scores.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/mlp.h"

namespace nibble::nn {

struct Moe {
  Linear router;             ///< hidden -> number of experts
  std::vector<Mlp> experts;  ///< empty: this is no mixture
  std::int64_t top_k = 0;    ///< experts per token, at most their number

  /// y = the mixture of x, both [rows, hidden]. A token's result does not depend on which others are computed with it,
  /// except for the rounding of products of another height.
  void forward(const float* x, std::int64_t rows, float* y, Exec& exec) const;
};

}  // namespace nibble::nn
