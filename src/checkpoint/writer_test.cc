#include "checkpoint/writer.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

std::vector<TensorPlan> plan_of(const Checkpoint& checkpoint) {
  std::vector<TensorPlan> plan;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    plan.push_back({tensor.name, tensor.view.dtype(), tensor.view.shape()});
  }
  return plan;
}

void write_all(CheckpointWriter& writer, const Checkpoint& checkpoint) {
  for (const TensorEntry& tensor : checkpoint.tensors()) writer.write(tensor.name, tensor.view.bytes());
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Writer, FilesAreByteEqualWithTheReferenceLibrary) {
  for (const char* name : {"all_dtypes", "no_metadata"}) {
    const fs::path source = test::data("safetensors") / (std::string(name) + ".safetensors");
    const auto checkpoint = Checkpoint::open(source.string());
    const test::TempDir dir;
    CheckpointWriter writer(dir / "out", plan_of(*checkpoint), {.metadata = checkpoint->metadata()});
    write_all(writer, *checkpoint);
    const std::int64_t promised = writer.total_bytes();
    writer.commit();
    EXPECT_EQ(test::read_text(dir / "out/model.safetensors"), test::read_text(source)) << name;
    EXPECT_EQ(promised, static_cast<std::int64_t>(fs::file_size(source)));
    EXPECT_EQ(names_in(dir / "out"), (std::vector<std::string>{"model.safetensors"}));
  }
}

TEST(Writer, ShardsAsTransformersDoes) {
  // The example of huggingface_hub: sizes 6 6 2 6 2 2 with limit 10 give 6 | 6+2 | 6+2+2; the own shard of a tensor
  // beyond the limit is numbered before the one being filled.
  const auto shards_for = [](std::vector<std::int64_t> sizes, std::int64_t limit) {
    const test::TempDir dir;
    std::vector<TensorPlan> plan;
    for (std::size_t i = 0; i < sizes.size(); ++i)
      plan.push_back({std::string(1, char('a' + i)), DType::u8, {sizes[i]}});
    CheckpointWriter writer(dir / "out", plan, {.max_shard_bytes = limit});
    for (const TensorPlan& tensor : plan) {
      writer.write(tensor.name, std::vector<std::byte>(static_cast<std::size_t>(tensor.shape[0]), std::byte{7}));
    }
    writer.commit();
    const auto reread = Checkpoint::open((dir / "out").string());
    std::string out;
    for (const TensorEntry& tensor : reread->tensors()) {
      const std::string name = tensor.file.filename().string();
      out += tensor.name + (name == "model.safetensors" ? "*" : name.substr(10, 1));
    }
    return out;
  };
  EXPECT_EQ(shards_for({6, 6, 2, 6, 2, 2}, 10), "a1b2c2d3e3f3");
  EXPECT_EQ(shards_for({3, 20, 3}, 10), "a2b1c2");
  EXPECT_EQ(shards_for({3, 3}, 6), "a*b*");
  EXPECT_EQ(shards_for({20}, 6), "a*");
  EXPECT_EQ(shards_for({}, 6), "");
}

TEST(Writer, IndexIsTransformersText) {
  const test::TempDir dir;
  CheckpointWriter writer(dir / "out", {{"b", DType::u8, {6}}, {"a", DType::u8, {6}}}, {.max_shard_bytes = 10});
  writer.write("b", std::vector<std::byte>(6));
  writer.write("a", std::vector<std::byte>(6));
  writer.add_file("config.json", "{}");
  writer.commit();
  EXPECT_EQ(
      test::read_text(dir / "out/model.safetensors.index.json"),
      "{\n  \"metadata\": {\n    \"total_size\": 12\n  },\n  \"weight_map\": {\n"
      "    \"a\": \"model-00002-of-00002.safetensors\",\n    \"b\": \"model-00001-of-00002.safetensors\"\n  }\n}\n");
  EXPECT_TRUE(fs::exists(dir / "out/config.json"));
}

void save(const fs::path& folder, int tensors, std::int64_t limit) {
  std::vector<TensorPlan> plan;
  for (int i = 0; i < tensors; ++i) plan.push_back({std::to_string(i), DType::u8, {6}});
  CheckpointWriter writer(folder, plan, {.max_shard_bytes = limit});
  for (const TensorPlan& tensor : plan) writer.write(tensor.name, std::vector<std::byte>(6));
  writer.commit();
}

TEST(Writer, EarlierSaveNeverMixesWithTheNewOne) {
  const test::TempDir dir;
  const fs::path out = dir / "out";
  save(out, 4, 6);
  EXPECT_EQ(names_in(out).size(), 5U);
  test::write_text(out / "model-00009-of-00009.safetensors.partial", "left by a killed save");
  test::write_text(out / "quanto_qmap.json", "how the earlier model was stored");
  test::write_text(out / "notes.txt", "somebody's own");
  save(out, 2, 6);
  EXPECT_TRUE(fs::remove(out / "notes.txt"));
  EXPECT_EQ(names_in(out),
            (std::vector<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                      "model.safetensors.index.json"}));
  EXPECT_EQ(Checkpoint::open(out.string())->tensors().size(), 2U);
  save(out, 1, 6);
  EXPECT_EQ(names_in(out), (std::vector<std::string>{"model.safetensors"}));
}

TEST(Writer, WithoutCommitNothingIsLeft) {
  const test::TempDir dir;
  {
    CheckpointWriter writer(dir / "out", {{"a", DType::u8, {6}}, {"b", DType::u8, {6}}}, {.max_shard_bytes = 6});
    writer.write("a", std::vector<std::byte>(6));
    EXPECT_EQ(names_in(dir / "out").size(), 1U);
    EXPECT_THROW(CheckpointWriter(dir / "out", {}), Error) << "two writers in one folder";
  }
  EXPECT_TRUE(names_in(dir / "out").empty());
}

TEST(Writer, RefusesWhatCannotBeSaved) {
  const test::TempDir dir;
  EXPECT_THROW(CheckpointWriter(dir / "o", {{"a", DType::u8, {6}}, {"a", DType::u8, {6}}}), Error);
  EXPECT_THROW(CheckpointWriter(dir / "o", {{"a", DType::u8, {std::int64_t{1} << 60}}}), Error)
      << "no disk is so large";
  test::write_text(dir / "file", "x");
  EXPECT_THROW(CheckpointWriter(dir / "file", {}), Error);
  fs::create_directory(dir / "foreign");
  test::write_text(dir / "foreign/pytorch_model.bin", "x");
  EXPECT_THROW(CheckpointWriter(dir / "foreign", {}), Error);
  CheckpointWriter writer(dir / "o", {{"a", DType::u8, {6}}});
  EXPECT_THROW(writer.add_file("../x", ""), Error);
  EXPECT_THROW(writer.commit(), Error) << "tensors are missing";
  EXPECT_THROW(writer.write("a", {}), Error) << "wrong size";
}

TEST(Writer, ByteSizes) {
  EXPECT_EQ(parse_byte_size("5GB"), 5'000'000'000);
  EXPECT_EQ(parse_byte_size("2GiB"), std::int64_t{2} << 30);
  EXPECT_EQ(parse_byte_size("500mb"), 500'000'000);
  EXPECT_EQ(parse_byte_size("1000000"), 1'000'000);
  for (const char* bad : {"", "GB", "-1", "1.5GB", "5 GB", "0", "99999999999999999999", "9999999999TB", "5XB"}) {
    EXPECT_THROW(parse_byte_size(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace nibble
