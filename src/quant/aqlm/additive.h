// The problem that AQLM solves for one weight, and what its steps share.
//
// W [rows, cols] is approximated row by row as s_r * u_r, where every group of g inputs of u_r is a sum of K words, one
// from each codebook. The error is measured in the outputs: tr((W - Q) G (W - Q)') with the inputs' Gram matrix G.
// Steps work on targets T = W / s, so that scales appear only as the weights s_r^2 of rows.
#pragma once
#include <cstdint>
#include <vector>

#include "device/device.h"

namespace nibble::aqlm {

/// The longest word.
inline constexpr std::int64_t kMaxDims = 64;

struct Codebooks {
  std::int64_t count = 1, entries = 256, dims = 8;  ///< K, 2^N, g
  std::vector<float> words;                         ///< [K, entries, g]
  float* word(std::int64_t k, std::int64_t e) { return words.data() + (k * entries + e) * dims; }
  const float* word(std::int64_t k, std::int64_t e) const { return words.data() + (k * entries + e) * dims; }
};

struct Problem {
  std::int64_t rows = 0, cols = 0, dims = 8;
  std::vector<float> target;      ///< T [rows, cols]
  std::vector<float> gram;        ///< G [cols, cols], symmetric, positive semidefinite
  std::vector<float> row_weight;  ///< [rows]: s_r^2 times any constant; 0 for rows of zeros
  std::int64_t groups() const { return cols / dims; }
};

/// [rows, groups, K]: which words make up each group.
using Codes = std::vector<std::int32_t>;

/// u [rows, cols]: the sums of the words that the codes name.
std::vector<float> sums_of_words(const Problem& problem, const Codebooks& books, const Codes& codes, ThreadPool& pool);

/// T - u.
std::vector<float> errors_of(const Problem& problem, const Codebooks& books, const Codes& codes, ThreadPool& pool);

/// x G for x [rows, cols]; sums in f32.
std::vector<float> times_gram(const Problem& problem, const std::vector<float>& x, Exec& exec);

/// e_r G e_r' of every row of `errors` [rows, cols], not weighted.
std::vector<double> row_losses(const Problem& problem, const std::vector<float>& errors, Exec& exec);

/// sum over rows of row_weight * row_losses.
double loss_of(const Problem& problem, const std::vector<double>& row_losses);

}  // namespace nibble::aqlm
