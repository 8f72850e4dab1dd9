// A save that dies, of a full disk or of kill -9, must leave nothing that looks like a whole model.
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>

#include "base/error.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

/// Saves a model whose every byte is `value`; also the number of tensors and shards follow from it.
void save(const fs::path& folder, int value) {
  std::vector<TensorPlan> plan;
  for (int i = 0; i < 4 + value; ++i) plan.push_back({"t" + std::to_string(i), DType::u8, {4096}});
  CheckpointWriter writer(folder, plan, {.max_shard_bytes = value % 3 == 0 ? 1 << 20 : 8192});
  const std::vector<std::byte> bytes(4096, static_cast<std::byte>(value));
  for (const TensorPlan& tensor : plan) writer.write(tensor.name, bytes);
  writer.add_file("config.json", "{\"value\": " + std::to_string(value) + "}");
  writer.commit();
}

/// The value of the model in the folder; nullopt when there is none that can be opened. A model that opens must be one
/// save's, whole.
std::optional<int> value_in(const fs::path& folder) {
  std::shared_ptr<const Checkpoint> checkpoint;
  try {
    checkpoint = Checkpoint::open(folder.string());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
    return std::nullopt;
  }
  EXPECT_FALSE(checkpoint->tensors().empty());
  EXPECT_FALSE(checkpoint->config().is_null());
  if (checkpoint->tensors().empty() || checkpoint->config().is_null()) return std::nullopt;
  const auto value = static_cast<int>(checkpoint->config().find("value")->integer(""));
  EXPECT_EQ(checkpoint->tensors().size(), static_cast<std::size_t>(4 + value));
  for (const TensorEntry& tensor : checkpoint->tensors()) {
    for (const std::byte byte : tensor.view.bytes()) {
      if (byte != static_cast<std::byte>(value)) {
        ADD_FAILURE() << tensor.name << " is of another save";
        return std::nullopt;
      }
    }
  }
  return value;
}

std::size_t partial_files(const fs::path& folder) {
  std::size_t count = 0;
  if (!fs::exists(folder)) return 0;
  for (const auto& entry : fs::directory_iterator(folder)) count += entry.path().extension() == ".partial" ? 1 : 0;
  return count;
}

TEST(WriterCrash, DiskFullAtAnyByteLeavesNothing) {
  // The files are about 36 kB (one) or 8.3 kB (several); the index and config.json are smaller.
  for (const int value : {1, 3}) {
    for (rlim_t limit = 0; limit < 40'000; limit += limit < 1024 ? 97 : 1789) {
      const test::TempDir dir;
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit small{limit, limit};
        ::setrlimit(RLIMIT_FSIZE, &small);
        try {
          save(dir / "out", value);
        } catch (const Error& error) {
          ::_exit(error.kind() == ErrorKind::runtime ? 1 : 3);
        }
        ::_exit(0);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status));
      const auto found = value_in(dir / "out");
      EXPECT_EQ(found.has_value(), WEXITSTATUS(status) == 0) << "limit " << limit;
      EXPECT_LE(WEXITSTATUS(status), 1);
      EXPECT_EQ(partial_files(dir / "out"), 0U) << "limit " << limit;
    }
  }
}

TEST(WriterCrash, KilledAtAnyPointTheFolderHoldsOneWholeModelOrNone) {
  const test::TempDir dir;
  const fs::path out = dir / "out";
  Rng rng(7);
  int whole = 0, none = 0;
  for (int round = 0; round < 120; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int value = 1 + round % 5;; value = value % 6 + 1) save(out, value);
    }
    ::usleep(static_cast<useconds_t>(rng.next() % 20'000));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "a save failed by itself";
    (fs::exists(out) && value_in(out) ? whole : none) += 1;
    if (::testing::Test::HasFailure()) return;
  }
  RecordProperty("whole", whole);
  RecordProperty("none", none);
  EXPECT_GT(none, 0) << "no kill hit a save";
  save(out, 2);
  EXPECT_EQ(value_in(out), 2);
  EXPECT_EQ(partial_files(out), 0U) << "a later save clears what killed ones left";
}

}  // namespace
}  // namespace nibble
