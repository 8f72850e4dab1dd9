// The feed-forward part of a block: down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate.
#pragma once
#include <cstdint>
#include <vector>

#include "nn/linear.h"

namespace nibble::nn {

struct Mlp {
  Linear gate;  ///< empty weight: none
  Linear up, down;
  Activation activation = Activation::silu;
  std::string activation_name;  ///< the module in front of down that may have scales; empty: the family has none
  std::vector<float> activation_scales;  ///< [inner], or empty: without a gate, act(x) is divided by them (AWQ)

  /// y = mlp(x), both [rows, hidden].
  void forward(const float* x, std::int64_t rows, float* y, Exec& exec) const;
};

}  // namespace nibble::nn
