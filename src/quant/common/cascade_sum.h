// The order in which PyTorch adds contiguous f32 numbers on one thread of a CPU (its cascade sum):
// blocks of 32 numbers are 4 x 8 running sums, and running sums move up a ladder of four levels so that rounding
// errors stay small. Reproduced where a decision depends on the last bit of a mean.
#pragma once
#include <array>
#include <cstdint>

namespace nibble {

/// The sum of exactly `count` numbers, told in order and in pieces of any size.
class CascadeSum {
 public:
  explicit CascadeSum(std::int64_t count);
  void add(const float* values, std::int64_t count);
  float result();

 private:
  static constexpr std::size_t kLanes = 8, kStreams = 4, kLevels = 4;
  using Block = std::array<float, kLanes * kStreams>;
  void add_block(const float* values);
  float short_sum() const;

  std::int64_t count_;
  std::int64_t blocks_left_;
  std::int64_t step_ = 0;  ///< blocks between two climbs of the ladder
  std::int64_t level_power_ = 0;
  std::int64_t seen_ = 0;  ///< blocks added
  std::int64_t full_ = 0;  ///< blocks before the last climb
  std::array<Block, kLevels> levels_{};
  Block pending_{};  ///< numbers of an unfinished block, then of the tail
  std::size_t pending_count_ = 0;
};

}  // namespace nibble
