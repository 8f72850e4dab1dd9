#include "nn/relative_bias.h"

#include <algorithm>
#include <cmath>

namespace nibble::nn {

std::int64_t RelativeBias::bucket(std::int64_t distance) const {
  const std::int64_t count = both_ways ? buckets / 2 : buckets;
  const std::int64_t base = both_ways && distance > 0 ? count : 0;
  const std::int64_t far = both_ways ? std::abs(distance) : std::max<std::int64_t>(-distance, 0);
  const std::int64_t exact = count / 2;
  if (far < exact) return base + far;
  const auto range = static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
  const float ratio = std::log(static_cast<float>(far) / static_cast<float>(exact)) / range;
  const auto beyond = static_cast<std::int64_t>(ratio * static_cast<float>(count - exact));
  return base + std::min(exact + beyond, count - 1);
}

DistanceBias RelativeBias::table(std::int64_t kv_rows, std::int64_t q_rows, Exec& exec) const {
  DistanceBias made;
  made.origin = kv_rows - 1;
  made.stride = kv_rows + q_rows + kDistanceSlack;
  float* values = exec.arena.take<float>(heads * made.stride).data();
  for (std::int64_t i = 0; i < made.stride; ++i) {
    // The slack is read but never counts.
    const float* row = weight.data() + bucket(std::min(i - made.origin, q_rows - 1)) * heads;
    for (std::int64_t head = 0; head < heads; ++head) values[head * made.stride + i] = row[head];
  }
  made.values = values;
  return made;
}

}  // namespace nibble::nn
