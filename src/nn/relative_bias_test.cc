// T5's buckets against those of Transformers (tools/make_encoder_goldens.py), and the table that attention reads.
#include "nn/relative_bias.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "checkpoint/checkpoint.h"
#include "support/test_support.h"

namespace nibble::nn {
namespace {

TEST(RelativeBias, BucketsAreThoseOfTransformers) {
  const auto golden = Checkpoint::open(test::data("models/relative_buckets.safetensors").string());
  ASSERT_GE(golden->tensors().size(), 10u);
  for (const TensorEntry& entry : golden->tensors()) {  // both_32_128: both ways, buckets, max_distance
    const std::size_t first = entry.name.find('_'), second = entry.name.find('_', first + 1);
    RelativeBias bias;
    bias.both_ways = entry.name.starts_with("both");
    bias.buckets = std::atoi(entry.name.c_str() + first + 1);
    bias.max_distance = std::atoi(entry.name.c_str() + second + 1);
    for (std::int64_t i = 0; i < entry.view.count(); ++i) {
      const std::int64_t distance = i - entry.view.count() / 2;
      EXPECT_EQ(bias.bucket(distance), static_cast<std::int64_t>(entry.view.at(i))) << entry.name << ", " << distance;
    }
  }
}

TEST(RelativeBias, TheFarthestShareABucket) {
  RelativeBias bias;
  EXPECT_EQ(bias.bucket(-(std::int64_t{1} << 40)), 15);
  EXPECT_EQ(bias.bucket(std::int64_t{1} << 40), 31);
  bias.both_ways = false;
  EXPECT_EQ(bias.bucket(-(std::int64_t{1} << 40)), 31);
  EXPECT_EQ(bias.bucket(5), 0);
}

TEST(RelativeBias, TableHoldsEveryDistanceOfAPass) {
  ThreadPool pool(1);
  Arena arena;
  Exec exec{.target = Target::ref, .pool = pool, .arena = arena};
  RelativeBias bias;
  bias.heads = 2;
  bias.buckets = 8;
  bias.max_distance = 20;
  for (int i = 0; i < 16; ++i) bias.weight.push_back(static_cast<float>(i));
  const std::int64_t kv_rows = 30, q_rows = 7;
  const DistanceBias table = bias.table(kv_rows, q_rows, exec);
  for (std::int64_t head = 0; head < 2; ++head) {
    for (std::int64_t distance = 1 - kv_rows; distance < q_rows; ++distance) {
      EXPECT_EQ(table.values[head * table.stride + table.origin + distance],
                static_cast<float>(2 * bias.bucket(distance) + head));
    }
  }
  EXPECT_GE(table.stride - table.origin, q_rows + kDistanceSlack);
}

}  // namespace
}  // namespace nibble::nn
