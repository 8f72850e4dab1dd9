#include "quant/select_modules.h"

#include <gtest/gtest.h>

#include "checkpoint/writer.h"
#include "support/test_support.h"

namespace nibble {
namespace {

/// A checkpoint of zeros with these tensors and this config.
std::shared_ptr<const Checkpoint> model_of(const test::TempDir& folder, const std::vector<TensorPlan>& tensors,
                                           const std::string& config) {
  CheckpointWriter writer(folder.path(), tensors);
  for (const TensorPlan& tensor : tensors) {
    writer.write(tensor.name,
                 std::vector<std::byte>(static_cast<std::size_t>(count_of(tensor.shape)) * size_of(tensor.dtype)));
  }
  writer.add_file("config.json", config);
  writer.commit();
  return Checkpoint::open(folder.path().string());
}

std::vector<std::string> names_of(const SelectionResult& result) {
  std::vector<std::string> names;
  for (const SelectedModule& module : result.modules) names.push_back(module.name);
  return names;
}

using Names = std::vector<std::string>;

TEST(SelectModules, LinearsAndConvolutionsOfAnyModel) {
  const test::TempDir folder;
  const auto checkpoint = model_of(folder,
                                   {{"encoder.layers.10.fc.weight", DType::bf16, {4, 8}},
                                    {"encoder.layers.10.fc.bias", DType::bf16, {4}},
                                    {"encoder.layers.2.fc.weight", DType::f16, {4, 8}},
                                    {"patch_embeddings.projection.weight", DType::f32, {4, 3, 2, 2}},
                                    {"conv1.weight", DType::f32, {4, 3, 2}},
                                    {"embed_tokens.weight", DType::f32, {16, 8}},
                                    {"embed_positions.weight", DType::f32, {16, 8}},
                                    {"norm.weight", DType::f32, {8}},
                                    {"ids.weight", DType::i64, {2, 2}},
                                    {"table", DType::f32, {2, 2}},
                                    {"lm_head.weight", DType::f32, {16, 8}}},
                                   "{\"model_type\": \"unheard-of\"}");
  EXPECT_EQ(names_of(select_modules(*checkpoint, {})),
            (Names{"encoder.layers.2.fc", "encoder.layers.10.fc", "patch_embeddings.projection"}));
  EXPECT_EQ(names_of(select_modules(*checkpoint, {.lm_head = true})).size(), 4U);
  EXPECT_EQ(names_of(select_modules(*checkpoint, {.include = {"*.2.*"}})), (Names{"encoder.layers.2.fc"}));
  EXPECT_EQ(names_of(select_modules(*checkpoint, {.include = {"lm_*"}})), (Names{"lm_head"}));
  EXPECT_EQ(names_of(select_modules(*checkpoint, {.exclude = {"encoder*"}})), (Names{"patch_embeddings.projection"}));
  EXPECT_THROW(select_modules(*checkpoint, {.exclude = {"no such"}}), Error) << "a pattern that matches nothing";
  EXPECT_THROW(select_modules(*checkpoint, {.exclude = {"*"}}), Error) << "nothing left";
}

TEST(SelectModules, ARecipeKeepsModulesAndMustMeanSome) {
  const test::TempDir folder;
  const auto checkpoint = model_of(folder,
                                   {{"l.0.a.weight", DType::f32, {8, 8}},
                                    {"l.0.b.weight", DType::f32, {8, 8}},
                                    {"l.1.a.weight", DType::f32, {8, 8}},
                                    {"lm_head.weight", DType::f32, {16, 8}}},
                                   "{}");
  const auto select = [&](const char* recipe, bool head = false) {
    return select_modules(*checkpoint,
                          {.lm_head = head, .recipe = parse_module_recipe(Json::parse(recipe, "r"), "r.json")});
  };
  const SelectionResult some = select(R"({"l.1": {"bits": 8}, ".*a": false})");
  EXPECT_EQ(names_of(some), (Names{"l.0.b", "l.1.a"}));
  EXPECT_EQ(some.kept, (Names{"l.0.a", "lm_head"}));
  EXPECT_EQ(names_of(select(R"({"lm_head": {}})", true)).size(), 4U) << "rules say how, --quantize-lm-head says that";
  for (const char* wrong : {R"({"lm_head": {}})", R"({"x": {}})", R"({".*": {}, "l": {"bits": 8}})"}) {
    EXPECT_THROW(select(wrong), Error) << wrong;
  }
  EXPECT_THROW(select(R"({".*": false})"), Error) << "nothing left";
}

TEST(SelectModules, TheHeadOfATiedModelIsItsEmbedding) {
  const test::TempDir folder;
  const auto checkpoint = model_of(
      folder, {{"model.embed_tokens.weight", DType::f32, {16, 8}}, {"model.layers.0.fc.weight", DType::f32, {8, 8}}},
      "{\"tie_word_embeddings\": true}");
  EXPECT_EQ(names_of(select_modules(*checkpoint, {})), (Names{"model.layers.0.fc"}));
  const SelectionResult with_head = select_modules(*checkpoint, {.lm_head = true});
  ASSERT_EQ(names_of(with_head), (Names{"lm_head", "model.layers.0.fc"}));
  EXPECT_TRUE(with_head.modules[0].tied);
  EXPECT_EQ(with_head.modules[0].weight->name, "model.embed_tokens.weight");
}

TEST(SelectModules, Conv1DWeightsOfGpt2AreKept) {
  const test::TempDir folder;
  const auto checkpoint =
      model_of(folder, {{"h.0.attn.c_attn.weight", DType::f32, {8, 24}}, {"wte.weight", DType::f32, {16, 8}}},
               "{\"model_type\": \"gpt2\"}");
  try {
    select_modules(*checkpoint, {});
    FAIL() << "there is no linear module";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("Conv1D"), std::string::npos) << error.what();
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
  }
}

TEST(SelectModules, PatternsAreThoseOfTheShell) {
  EXPECT_TRUE(matches_pattern("model.layers.3.mlp.up_proj", "*.up_proj"));
  EXPECT_TRUE(matches_pattern("model.layers.3.mlp", "model.layers.?.m*"));
  EXPECT_TRUE(matches_pattern("layers.3", "layers.[2-4]"));
  EXPECT_FALSE(matches_pattern("layers.3", "layers.[!2-4]"));
  EXPECT_FALSE(matches_pattern("model.lm_head", "lm_head"));
}

}  // namespace
}  // namespace nibble
