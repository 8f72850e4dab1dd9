// GPTQ (Frantar et al. 2023, arXiv:2210.17323): integer codes of one weight, column by column, where the error of each
// column is made up for by those that follow, as the inputs' Gram matrix says. The arithmetic of AutoGPTQ and GPTQModel
// in f32; see quant/gptq/README.md.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "quant/common/grid_refiner.h"

namespace nibble {

struct GptqOptions {
  std::int32_t bits = 4;     ///< 2 to 8
  std::int64_t group = 128;  ///< inputs with one scale; -1: all
  bool sym = true;           ///< zero point in the middle of the codes
  bool desc_act = false;     ///< columns in order of falling activation
  /// Without desc_act: groups stay consecutive inputs, but go first whose largest activation is larger, and in a group
  /// so do columns (Gafni et al. 2025, arXiv:2505.14638; GPTQModel's act_group_aware). Ignored with desc_act, and where
  /// whole rows are a group.
  bool act_group_aware = false;
  bool static_groups = false;  ///< with desc_act: groups stay consecutive inputs
  double damp = 0.01;          ///< of the mean diagonal, added to the diagonal
  double damp_step = 0.01;     ///< added to damp while the matrix is not positive definite
  double mse_norm = 0;         ///< > 0: ranges shrink to minimize sum |error|^norm (AutoGPTQ: 2.4)
};

/// Error(bad_input) when an option is out of range or does not fit `cols` inputs.
void check_gptq_options(const GptqOptions& options, std::int64_t cols);

struct GptqResult : GridCodes {
  double loss = 0;        ///< sum of (w - value)^2 / (2 U_ii^2), as the libraries report it
  double damp = 0;        ///< that was needed
  std::int64_t dead = 0;  ///< inputs that were always zero
  bool rounded = false;   ///< no damping helped: plain rounding
};

/// `weight` [rows, cols] finite f32; `gram` [cols, cols] is the Gram matrix of the inputs times any constant (the
/// libraries: 2 / samples). The same codes for any number of threads. Where no damping up to 1 makes the matrix
/// positive definite, the weight is rounded to nearest on searched ranges (mse_norm, or 2.4), and `rounded` says so.
GptqResult gptq_quantize(std::span<const float> weight, std::int64_t rows, std::span<const float> gram,
                         const GptqOptions& options, Exec& exec);

/// The same grids (mse_norm included, one per group of consecutive inputs) with every weight rounded to the nearest
/// code on its own. Needs no data; `loss` stays 0.
GptqResult round_to_nearest(std::span<const float> weight, std::int64_t rows, const GptqOptions& options, Exec& exec);

/// How codes are chosen: one by one, or each input's error made up for by those that follow.
enum class GridAlgorithm : std::uint8_t { rtn, gptq };

/// An algorithm over the affine grids, for any format that stores them.
struct GridSolver {
  GptqOptions options;
  GridAlgorithm algorithm = GridAlgorithm::gptq;
  std::int32_t refine = 0;  ///< passes over the codes once they are all chosen (grid_refiner.h); 0: as the libraries
};

/// Codes of `weight` [rows, cols]; `gram` as for gptq_quantize, or empty where rtn has no data (then nothing is
/// refined). With passes of refinement, `loss` is the error of the outputs that is left, and scales are f16 values.
GptqResult solve_grid(std::span<const float> weight, std::int64_t rows, std::span<const float> gram,
                      const GridSolver& solver, Exec& exec);

/// Scale and zero point of one group of a row.
struct GptqGrid {
  float scale = 1, zero = 0;
};
GptqGrid gptq_grid(const float* x, std::int64_t count, const GptqOptions& options);

}  // namespace nibble
