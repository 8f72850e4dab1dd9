// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and the ways of stretching it to longer contexts that
// config.json can ask for. Frequencies are computed as Transformers does, in f32 steps, so that angles agree at long
// positions.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace nibble::nn {

enum class RopeKind : std::uint8_t {
  standard,
  linear,   ///< positions divided by factor
  dynamic,  ///< NTK-aware base that grows with the sequence once it is longer than max_positions
  llama3,   ///< Llama 3.1: low frequencies divided by factor, a smooth step between
  yarn,     ///< YaRN, arXiv:2309.00071
};

/// The fields of rope_parameters (Transformers 5) or rope_theta and rope_scaling (4), already range-checked.
struct RopeConfig {
  RopeKind kind = RopeKind::standard;
  double theta = 10000;
  double factor = 1;
  double partial = 1;              ///< the leading part of each head that is rotated
  std::int64_t max_positions = 0;  ///< max_position_embeddings: dynamic
  std::int64_t original_positions = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  double beta_fast = 32, beta_slow = 1;              ///< yarn
  double attention_factor = 1;                       ///< yarn: cosine and sine are multiplied by it
  bool truncate = true;                              ///< yarn: round the correction range outwards
};

class Rope {
 public:
  /// `head_dim` and the rotated part of it are even and positive.
  Rope(const RopeConfig& config, std::int64_t head_dim);

  /// Leading dimensions of a head that are rotated.
  std::int64_t rotary_dim() const { return rotary_dim_; }

  /// Cosines and sines [rows, rotary_dim / 2] of the positions first, first + 1, ... of a sequence that is `length`
  /// positions long at the end of the pass (which only `dynamic` looks at: like Transformers, it rotates all positions
  /// of one pass by the final length, and leaves earlier keys as they are).
  void table(std::int64_t first, std::int64_t rows, std::int64_t length, float* cos, float* sin) const;

 private:
  RopeConfig config_;
  std::int64_t rotary_dim_;
  std::vector<float> inv_freq_;  ///< [rotary_dim / 2]
};

}  // namespace nibble::nn
