#include "checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

/// A safetensors file with u8 tensors of one byte.
std::string safetensors(const std::vector<std::string>& names) {
  std::string header = "{";
  for (std::size_t i = 0; i < names.size(); ++i) {
    header += (i == 0 ? "" : ",");
    header += "\"" + names[i] + "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" + std::to_string(i) + "," +
              std::to_string(i + 1) + "]}";
  }
  header += "}";
  std::string out(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(out.data(), &length, 8);
  return out + header + std::string(names.size(), 'x');
}

std::string complaint(const fs::path& path) {
  try {
    Checkpoint::open(path.string());
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
    return error.what();
  }
}

class Sharded : public ::testing::Test {
 protected:
  Sharded() {
    test::write_text(dir_ / "1.safetensors", safetensors({"a", "b"}));
    test::write_text(dir_ / "2.safetensors", safetensors({"c"}));
  }
  std::string with_index(const std::string& index) {
    test::write_text(dir_ / "model.safetensors.index.json", index);
    return complaint(dir_.path());
  }
  std::string with_map(const std::string& map) { return with_index("{\"weight_map\": {" + map + "}}"); }
  const test::TempDir dir_;
};

#define EXPECT_CONTAINS(text, part)                                               \
  do {                                                                            \
    const std::string shown = text;                                               \
    EXPECT_NE(shown.find(part), std::string::npos) << "got: \"" << shown << "\""; \
  } while (false)

TEST_F(Sharded, ReadsEveryShard) {
  EXPECT_EQ(with_map(R"("a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors")"), "");
  const auto checkpoint = Checkpoint::open(dir_.path().string());
  ASSERT_EQ(checkpoint->tensors().size(), 3U);
  EXPECT_EQ(checkpoint->find("c")->file.filename(), "2.safetensors");
  EXPECT_EQ(checkpoint->find("d"), nullptr);
  EXPECT_THROW(checkpoint->at("d"), Error);
  EXPECT_EQ(Checkpoint::open((dir_ / "model.safetensors.index.json").string())->tensors().size(), 3U);
  EXPECT_EQ(Checkpoint::open((dir_ / "1.safetensors").string())->tensors().size(), 2U);
}

TEST_F(Sharded, BrokenIndexesAreErrors) {
  EXPECT_CONTAINS(with_index("{}"), "weight_map is missing");
  EXPECT_CONTAINS(with_index("[]"), "weight_map is missing");
  EXPECT_CONTAINS(with_index("{\"weight_map\": []}"), "weight_map is missing");
  EXPECT_CONTAINS(with_index("{\"weight_map\": {"), "not valid JSON");
  EXPECT_CONTAINS(with_map(""), "weight_map is empty");
  EXPECT_CONTAINS(with_map(R"("a": 1)"), "expected a string");
  EXPECT_CONTAINS(with_map(R"("a": "1.safetensors", "a": "2.safetensors")"), "duplicate key");
  EXPECT_CONTAINS(with_map(R"("a": "3.safetensors")"), "\"3.safetensors\" is missing");
  EXPECT_CONTAINS(with_map(R"("c": "1.safetensors", "a": "2.safetensors")"), "where weight_map says it is");
  EXPECT_CONTAINS(with_map(R"("z": "1.safetensors")"), "tensor \"z\" is not in 1.safetensors");
}

TEST_F(Sharded, ShardsMustLieInTheFolder) {
  test::write_text(dir_.path().string() + ".outside", safetensors({"z"}));
  const fs::path outside = dir_.path().string() + ".outside";
  for (const std::string name : {"../x.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\\\b", "a\\u0000b"}) {
    EXPECT_CONTAINS(with_map("\"a\": \"" + name + "\""), "is not a plain file name");
  }
  fs::create_symlink(outside, dir_ / "link");
  EXPECT_CONTAINS(with_map(R"("z": "link")"), "leads out of the folder");
  fs::create_symlink("loop", dir_ / "loop");
  EXPECT_CONTAINS(with_map(R"("z": "loop")"), "cannot be followed");
  fs::create_symlink("gone", dir_ / "dangling");
  EXPECT_CONTAINS(with_map(R"("z": "dangling")"), "cannot be followed");
  fs::create_directory(dir_ / "folder");
  EXPECT_CONTAINS(with_map(R"("z": "folder")"), "is not a regular file");
  ASSERT_EQ(::mkfifo((dir_ / "fifo").c_str(), 0600), 0);
  EXPECT_CONTAINS(with_map(R"("z": "fifo")"), "is not a regular file");
  fs::create_symlink("/dev/zero", dir_ / "zero");
  EXPECT_CONTAINS(with_map(R"("z": "zero")"), "is not a regular file");
  fs::create_symlink("1.safetensors", dir_ / "inside");
  EXPECT_EQ(with_map(R"("a": "inside")"), "") << "links within the folder are fine";
  fs::remove(outside);
}

TEST_F(Sharded, TensorsInTwoShardsAreRefused) {
  test::write_text(dir_ / "3.safetensors", safetensors({"a"}));
  EXPECT_CONTAINS(with_map(R"("a": "1.safetensors", "c": "3.safetensors")"), "is also in");
}

TEST_F(Sharded, DownloadAccidentsAreNamed) {
  test::write_text(dir_ / "1.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  EXPECT_CONTAINS(with_map(R"("a": "1.safetensors")"), "git-lfs pointer");
  test::write_text(dir_ / "1.safetensors", "<!DOCTYPE html><title>404</title>");
  EXPECT_CONTAINS(with_map(R"("a": "1.safetensors")"), "a web page");
  test::write_text(dir_ / "1.safetensors", "GGUF\3\1\1\1abcdefgh");
  EXPECT_CONTAINS(with_map(R"("a": "1.safetensors")"), "GGUF");
  test::write_text(dir_ / "1.safetensors", safetensors({"a", "b"}).substr(0, 60));
  EXPECT_CONTAINS(with_map(R"("a": "1.safetensors")"), "truncated");
}

TEST_F(Sharded, ShardsWithoutIndexAreAnUnfinishedModel) {
  const test::TempDir other;
  test::write_text(other / "model-00002-of-00003.safetensors", safetensors({"a"}));
  EXPECT_CONTAINS(complaint(other.path()), "no model.safetensors.index.json");
  EXPECT_CONTAINS(complaint(dir_.path()), "more than one *.safetensors");
  const test::TempDir empty;
  EXPECT_CONTAINS(complaint(empty.path()), "no weights here");
}

TEST(CheckpointFolder, ConfigMustBeAnObject) {
  const test::TempDir dir;
  test::write_text(dir / "model.safetensors", safetensors({"a"}));
  EXPECT_EQ(complaint(dir.path()), "");
  EXPECT_TRUE(Checkpoint::open(dir.path().string())->config().is_null());
  for (const char* bad : {"[]", "3", "{\"a\": 1, \"a\": 2}", "{", "{\"a\": 1e999}", "\xff"}) {
    test::write_text(dir / "config.json", bad);
    EXPECT_NE(complaint(dir.path()), "") << bad;
  }
}

TEST(CheckpointFolder, AnUnusualNameIsFoundWhenItIsTheOnlyOne) {
  const test::TempDir dir;
  test::write_text(dir / "adapter_model.safetensors", safetensors({"a"}));
  EXPECT_EQ(complaint(dir.path()), "");
}

TEST(CheckpointFolder, HundredsOfThousandsOfTensorsOpenInSeconds) {
  const test::TempDir dir;
  std::vector<std::string> names;
  for (int i = 0; i < 300'000; ++i) names.push_back("t" + std::to_string(i));
  test::write_text(dir / "model.safetensors", safetensors(names));
  const auto begin = std::chrono::steady_clock::now();
  const auto checkpoint = Checkpoint::open(dir.path().string());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(checkpoint->tensors().size(), 300'000U);
  EXPECT_NE(checkpoint->find("t299999"), nullptr);
  RecordProperty("milliseconds", static_cast<int>(seconds.count() * 1000));
  EXPECT_LT(seconds.count(), 60) << "quadratic work would take hours";
}

/// Environment variables for one test.
class Cache : public ::testing::Test {
 protected:
  Cache() {
    for (const char* name : kNames) {
      const char* value = std::getenv(name);
      old_.emplace_back(name, value == nullptr ? std::optional<std::string>() : value);
      ::unsetenv(name);
    }
    ::setenv("HOME", dir_.path().c_str(), 1);
  }
  ~Cache() override {
    for (const auto& [name, value] : old_) value ? ::setenv(name, value->c_str(), 1) : ::unsetenv(name);
  }
  void make(const fs::path& hub, const std::string& repo, const std::string& revision) {
    fs::create_directories(hub / repo / "snapshots" / commit_);
    fs::create_directories((hub / repo / "refs" / revision).parent_path());
    test::write_text(hub / repo / "refs" / revision, commit_ + "\n");
  }
  std::string resolved(const std::string& model) {
    try {
      return resolve_model(model).string();
    } catch (const Error& error) {
      return error.what();
    }
  }
  static constexpr const char* kNames[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME",
                                           "HOME"};
  const test::TempDir dir_;
  const std::string commit_ = "0123456789abcdef0123456789abcdef01234567";
  std::vector<std::pair<const char*, std::optional<std::string>>> old_;
};

TEST_F(Cache, FoundWhereThePythonLibraryPutsIt) {
  make(dir_ / ".cache/huggingface/hub", "models--org--name", "main");
  const std::string snapshot = (dir_ / ".cache/huggingface/hub/models--org--name/snapshots").string() + "/" + commit_;
  EXPECT_EQ(resolved("org/name"), snapshot);
  EXPECT_EQ(resolved("org/name@" + commit_), snapshot);
  EXPECT_EQ(resolved("org/name@main"), snapshot);
  make(dir_ / "home/hub", "models--gpt2", "refs/pr/1");
  ::setenv("HF_HOME", (dir_ / "home").c_str(), 1);
  EXPECT_EQ(resolved("gpt2@refs/pr/1"), (dir_ / "home/hub/models--gpt2/snapshots").string() + "/" + commit_);
  EXPECT_CONTAINS(resolved("gpt2"), "home/hub/models--gpt2/refs/main");
  EXPECT_CONTAINS(resolved("org/name"), (dir_ / "home/hub/models--org--name").string());
  make(dir_ / "direct", "models--gpt2", "main");
  ::setenv("HF_HUB_CACHE", (dir_ / "direct").c_str(), 1);
  EXPECT_EQ(resolved("gpt2"), (dir_ / "direct/models--gpt2/snapshots").string() + "/" + commit_);
}

TEST_F(Cache, AnExistingPathComesFirstAndOddNamesAreRefused) {
  EXPECT_EQ(resolved(dir_.path().string()), dir_.path().string());
  EXPECT_CONTAINS(resolved(""), "empty");
  EXPECT_CONTAINS(resolved("a/b/c"), "no such file or folder");
  EXPECT_CONTAINS(resolved("../x/y"), "no such file or folder");
  EXPECT_CONTAINS(resolved("a/../b"), "no such file or folder");
  EXPECT_CONTAINS(resolved("org/na--me"), "no such file or folder");
  EXPECT_CONTAINS(resolved("org/name@../../x"), "is not a revision");
  EXPECT_CONTAINS(resolved("org/name@/etc"), "is not a revision");
  EXPECT_CONTAINS(resolved("org/name@"), "is not a revision");
}

TEST_F(Cache, BrokenCachesAreErrors) {
  make(dir_ / "hub", "models--org--name", "main");
  ::setenv("HF_HOME", dir_.path().c_str(), 1);
  test::write_text(dir_ / "hub/models--org--name/refs/main", "../../../etc");
  EXPECT_CONTAINS(resolved("org/name"), "does not hold a commit");
  test::write_text(dir_ / "hub/models--org--name/refs/main", std::string(40, 'b'));
  EXPECT_CONTAINS(resolved("org/name"), "snapshots/" + std::string(40, 'b'));
}

}  // namespace
}  // namespace nibble
