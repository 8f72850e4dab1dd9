// HQQ: half-quadratic refinement of the shifts of affine groups (Badri and Shaji, "Half-Quadratic Quantization of Large
// Machine Learning Models", https://mobiusml.github.io/hqq_blog/), as Quanto's HqqOptimizer computes it: starting from
// the min-max scale and shift, the scale stays and the shift follows a shrunk error while the mean error falls.
#pragma once
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/view.h"

namespace nibble {

struct HalfQuadratic {
  View values;  ///< groups * group finite values, f32, f16 or bf16
  std::int64_t groups = 0;
  std::int64_t group = 0;  ///< values of one group, consecutive
  std::int32_t bits = 4;
  double lp_norm = 0.7;
  double beta = 10;
  double kappa = 1.01;
  std::int32_t iterations = 20;
};

/// The refined shift of every group, exactly representable in the dtype of the values. Sums are taken in the order of
/// PyTorch on one thread of a CPU, so the bits are those of the library there; values that are not
/// finite give any finite or NaN shift. The same bits for any number of threads.
std::vector<float> half_quadratic_shifts(const HalfQuadratic& problem, ThreadPool& pool);

}  // namespace nibble
