// AQLM (Egiazarian et al. 2024, arXiv:2401.06118): a weight as sums of codebook words, chosen so that the layer's
// outputs change least. Works on the inputs' Gram matrix alone; see README.md for the steps and where they differ from
// the original's.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "device/device.h"

namespace nibble::aqlm {

/// How much work the search may do.
struct Effort {
  std::int64_t kmeans_iterations = 30;  ///< of each codebook's start, at most
  std::int64_t points_per_word = 256;   ///< sample that k-means sees; 0: all groups
  std::int64_t beam = 8;                ///< partial sums kept between two codebooks
  std::int64_t epochs = 12;             ///< rounds of fitting codebooks and choosing codes, at most
  std::int64_t fit_steps = 12;          ///< conjugate gradient steps of one fit, at most
  std::int64_t passes = 2;              ///< over all groups when codes are chosen, at most
  double tolerance = 0.003;             ///< epochs end when one lowers the error by less than this part
};

enum class Preset : std::uint8_t { fast, standard, best };
Effort effort_of(Preset preset);
/// "fast", "standard" or "best".
std::optional<Preset> preset_from_name(std::string_view name);

struct Options {
  std::int64_t codebooks = 2;  ///< K, 1 to 16
  std::int64_t bits = 8;       ///< N, 1 to 16: 2^N words in each codebook
  std::int64_t group = 8;      ///< inputs of one word: 4, 8, 16 or 32
  double damp = 0.01;          ///< of the mean diagonal, where errors are fed back into later groups
  std::uint64_t seed = 0;      ///< of the start
  Effort effort{};
};

/// Throws Error(bad_input) when an option is out of range or groups do not divide `cols`.
void check_options(const Options& options, std::int64_t cols);

struct Solution {
  std::vector<std::int32_t> codes;  ///< [rows, cols / group, K], 0 to 2^N - 1
  std::vector<float> words;         ///< [K, 2^N, group], values of f16
  std::vector<float> scales;        ///< [rows], values of f16
  std::vector<double> losses;       ///< tr(dW G dW') after the start and after every epoch, never rising
  double loss = 0;                  ///< of the f16 values above
};

/// `weight` [rows, cols] finite f32; `gram` [cols, cols], symmetric positive semidefinite, is the inputs' Gram matrix
/// times any constant. The same result for any number of threads. Throws Error(bad_input) when scales leave the range
/// of f16. Memory: 8 f32 matrices of the weight's size, two of the Gram matrix's.
Solution solve(std::span<const float> weight, std::int64_t rows, std::span<const float> gram, const Options& options,
               Exec& exec);

}  // namespace nibble::aqlm
