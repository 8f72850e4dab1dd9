#include "checkpoint/fingerprint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "checkpoint/writer.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// Two tensors of 9 and 1 MiB, so that one is hashed in pieces; `change` is added to the last byte of the first.
std::string fingerprint_of(const fs::path& folder, int change, const std::string& config, std::int64_t shard,
                           int threads) {
  std::vector<std::byte> big(9 << 20), small(1 << 20);
  for (std::size_t i = 0; i < big.size(); ++i) big[i] = static_cast<std::byte>(i * 7 % 251);
  big.back() = static_cast<std::byte>(static_cast<int>(big.back()) + change);
  CheckpointWriter writer(folder, {{"big", DType::u8, {9 << 20}}, {"small", DType::u8, {1 << 20}}},
                          {.max_shard_bytes = shard});
  writer.write("big", big);
  writer.write("small", small);
  writer.add_file("config.json", config);
  writer.commit();
  ThreadPool pool(threads);
  return model_fingerprint(*Checkpoint::open(folder.string()), pool);
}

TEST(ModelFingerprint, IsOfContentsNotOfFiles) {
  const test::TempDir temp;
  const std::string whole = fingerprint_of(temp / "a", 0, "{\"a\": 1}", 1 << 30, 2);
  EXPECT_EQ(whole.size(), 64U);
  EXPECT_EQ(fingerprint_of(temp / "b", 0, "{ \"a\":1 }", 9 << 20, 1), whole) << "shards, spaces, threads";
  EXPECT_NE(fingerprint_of(temp / "c", 1, "{\"a\": 1}", 1 << 30, 2), whole) << "a byte";
  EXPECT_NE(fingerprint_of(temp / "d", 0, "{\"a\": 2}", 1 << 30, 2), whole) << "the config";
}

}  // namespace
}  // namespace nibble
