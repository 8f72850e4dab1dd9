#include "checkpoint/side_files.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

void make_model(const fs::path& folder) {
  fs::create_directories(folder / "additional_chat_templates");
  fs::create_directories(folder / "other.json");
  fs::copy_file(test::data("safetensors/no_metadata.safetensors"), folder / "model.safetensors");
  test::write_text(folder / "config.json", "{\"b\": 1, \"a\": [1, 2]}");
  test::write_text(folder / "tokenizer.json", "not even JSON: carried as it is");
  test::write_text(folder / "tokenizer.model", std::string("\0\1\2", 3));
  test::write_text(folder / "additional_chat_templates/tool_use.jinja", "{{ x }}");
  test::write_text(folder / "model.safetensors.index.json", "{}");
  test::write_text(folder / "weights.gguf", "GGUF");
  test::write_text(folder / ".hidden.json", "{}");
}

TEST(SideFiles, CarriedOverWithAnEditedConfig) {
  const test::TempDir dir;
  make_model(dir / "in");
  const auto checkpoint = Checkpoint::open((dir / "in").string());
  Json config = checkpoint->config();
  config.set("quantization_config", Json::Object{{"bits", 4}});
  {
    CheckpointWriter writer(dir / "out", {{"w", DType::u8, {1}}});
    writer.write("w", std::vector<std::byte>(1));
    add_side_files(writer, *checkpoint, config);
    writer.commit();
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(dir / "out")) {
    if (entry.is_regular_file()) names.push_back(fs::relative(entry.path(), dir / "out").string());
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"additional_chat_templates/tool_use.jinja", "config.json",
                                             "model.safetensors", "tokenizer.json", "tokenizer.model"}));
  EXPECT_EQ(test::read_text(dir / "out/tokenizer.model"), std::string("\0\1\2", 3));
  EXPECT_EQ(test::read_text(dir / "out/config.json"),
            "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    2\n  ],\n  \"quantization_config\": {\n    \"bits\": 4\n  }\n}\n");
}

TEST(SideFiles, LinksOutOfTheFolderAreRefused) {
  const test::TempDir dir;
  make_model(dir / "in");
  test::write_text(dir / "secret", "x");
  fs::create_symlink(dir / "secret", dir / "in/vocab.txt");
  EXPECT_THROW(read_side_files(dir / "in"), Error);
  fs::remove(dir / "in/vocab.txt");
  fs::create_symlink("tokenizer.json", dir / "in/vocab.txt");
  EXPECT_EQ(read_side_files(dir / "in").size(), 4U);
}

TEST(SideFiles, OutputMustNotBeTheInput) {
  const test::TempDir dir;
  fs::create_directory(dir / "a");
  fs::create_symlink("a", dir / "b");
  EXPECT_THROW(refuse_same_folder(dir / "b", dir / "a"), Error);
  EXPECT_THROW(refuse_same_folder((dir / "a").string() + "/../a", dir / "a"), Error);
  EXPECT_NO_THROW(refuse_same_folder(dir / "c", dir / "a"));
}

}  // namespace
}  // namespace nibble
