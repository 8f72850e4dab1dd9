#include "quant/common/cascade_sum.h"

#include <algorithm>

namespace nibble {
namespace {

std::int64_t ceil_log2(std::int64_t value) {
  std::int64_t log = 0;
  while ((std::int64_t{1} << log) < value) ++log;
  return log;
}

}  // namespace

CascadeSum::CascadeSum(std::int64_t count)
    : count_(count), blocks_left_(count / static_cast<std::int64_t>(kLanes * kStreams)) {
  level_power_ = std::max<std::int64_t>(4, ceil_log2(blocks_left_) / static_cast<std::int64_t>(kLevels));
  step_ = std::int64_t{1} << level_power_;
  full_ = blocks_left_ / step_ * step_;
}

void CascadeSum::add_block(const float* values) {
  for (std::size_t i = 0; i < kLanes * kStreams; ++i) levels_[0][i] += values[i];
  ++seen_;
  --blocks_left_;
  if (seen_ > full_ || seen_ % step_ != 0) return;
  for (std::size_t level = 1; level < kLevels; ++level) {
    for (std::size_t i = 0; i < kLanes * kStreams; ++i) levels_[level][i] += levels_[level - 1][i];
    levels_[level - 1].fill(0);
    const std::int64_t mask = (step_ - 1) << (static_cast<std::int64_t>(level) * level_power_);
    if ((seen_ & mask) != 0) break;
  }
}

void CascadeSum::add(const float* values, std::int64_t count) {
  while (count > 0) {
    const std::int64_t block = static_cast<std::int64_t>(kLanes * kStreams);
    if (pending_count_ == 0 && count >= block && blocks_left_ > 0) {
      add_block(values);
      values += block;
      count -= block;
      continue;
    }
    const std::int64_t take = std::min(count, block - static_cast<std::int64_t>(pending_count_));
    std::copy_n(values, take, pending_.begin() + static_cast<std::ptrdiff_t>(pending_count_));
    pending_count_ += static_cast<std::size_t>(take);
    values += take;
    count -= take;
    if (pending_count_ == kLanes * kStreams && blocks_left_ > 0) {
      add_block(pending_.data());
      pending_count_ = 0;
    }
  }
}

/// Fewer numbers than lanes are added without them, in four streams.
float CascadeSum::short_sum() const {
  std::array<float, kStreams> streams{};
  const std::size_t whole = pending_count_ / kStreams * kStreams;
  for (std::size_t i = 0; i < pending_count_; ++i) streams[i < whole ? i % kStreams : 0] += pending_[i];
  float sum = streams[0];
  for (std::size_t i = 1; i < kStreams; ++i) sum += streams[i];
  return sum;
}

float CascadeSum::result() {
  if (count_ < static_cast<std::int64_t>(kLanes)) return short_sum();
  for (std::size_t level = 1; level < kLevels; ++level) {
    for (std::size_t i = 0; i < kLanes * kStreams; ++i) levels_[0][i] += levels_[level][i];
  }
  std::array<float, kLanes> lanes;
  std::copy_n(levels_[0].begin(), kLanes, lanes.begin());
  const std::size_t whole = pending_count_ / kLanes * kLanes;
  for (std::size_t i = 0; i < whole; ++i) lanes[i % kLanes] += pending_[i];
  for (std::size_t stream = 1; stream < kStreams; ++stream) {
    for (std::size_t i = 0; i < kLanes; ++i) lanes[i] += levels_[0][stream * kLanes + i];
  }
  float sum = 0;
  for (std::size_t i = whole; i < pending_count_; ++i) sum += pending_[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace nibble
