// Calibration gives the scales that optimum-quanto found on the same model and sequences.
#include "calib/activation_scales.h"

#include <gtest/gtest.h>

#include <cmath>

#include "calib/dataset.h"
#include "support/test_support.h"

namespace nibble {
namespace {

using test::data;

Json calibrated_variant() {
  const Json index = Json::read(data("quanto/index.json"));
  for (const Json& variant : index.find("variants")->array("variants")) {
    if (variant.find("calibration") != nullptr) return variant;
  }
  return {};
}

std::vector<std::vector<std::int32_t>> sequences_of(const Json& rows) {
  std::vector<std::vector<std::int32_t>> out;
  for (const Json& row : rows.array("sequences")) {
    auto& ids = out.emplace_back();
    for (const Json& id : row.array("ids")) ids.push_back(static_cast<std::int32_t>(id.integer("id")));
  }
  return out;
}

TEST(ActivationScales, AreThoseOfTheLibrary) {
  const Json variant = calibrated_variant();
  ASSERT_TRUE(variant.is_object());
  const auto source = Checkpoint::open(data("quanto/tiny-llama-fp32").string());
  const auto golden = Checkpoint::open(data("quanto/" + variant.find("ckpt")->string("ckpt")).string());
  const auto sequences = sequences_of(*variant.find("calibration")->find("sequences"));
  ASSERT_EQ(sequences.size(), 3U);
  ThreadPool pool(2);
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = DType::f32};
  const test::TempDir temp;
  quanto::Config config;
  config.activations = quanto::QType::qint8;
  ModuleSelection selection;
  selection.lm_head = true;
  const auto scales = calibrate_activations({*source, config, selection, temp / "meanwhile"}, sequences, {}, exec);
  EXPECT_FALSE(std::filesystem::exists(temp / "meanwhile"));
  ASSERT_EQ(scales.size(), 15U);
  for (const auto& [module, found] : scales) {
    const float input = golden->at(module + ".input_scale").at(0), output = golden->at(module + ".output_scale").at(0);
    EXPECT_NEAR(found.input / input, 1, 2e-3) << module;
    EXPECT_NEAR(found.output / output, 1, 2e-3) << module;
  }
}

TEST(ActivationScales, FirstBatchSetsAndLaterOnesMove) {
  ScaleCollector collector(DType::i8, {.momentum = 0.5});
  collector.observe("m", DType::f32);
  const float first[] = {-127, 3}, second[] = {254, 0};
  collector.linear_input("m", first, 1, 2);
  collector.linear_output("m", first, 1, 2);
  StaticScales scales;
  collector.static_scales("m", scales);
  EXPECT_TRUE(scales.quantize_output);
  collector.end_sequence();
  collector.static_scales("m", scales);
  EXPECT_FALSE(scales.quantize_output) << "streamline";
  // A scale of exactly 1 counts as not yet set, in the library too.
  collector.linear_input("m", second, 1, 2);
  EXPECT_EQ(collector.scales().at("m").input, 2);
  const float third[] = {0, -508};
  collector.linear_input("m", third, 1, 2);
  collector.linear_output("m", second, 1, 2);
  collector.linear_output("m", third, 1, 2);
  EXPECT_FLOAT_EQ(collector.scales().at("m").input, 0.9F * 2 + 0.1F * 4) << "input scales use 0.9 whatever is asked";
  EXPECT_FLOAT_EQ(collector.scales().at("m").output, 0.5F * 2 + 0.5F * 4);
  collector.linear_input("other", third, 1, 2);
  EXPECT_EQ(collector.scales().size(), 1U);
}

TEST(Dataset, ReadsIdsRowsAndText) {
  const test::TempDir temp;
  const std::filesystem::path model = test::source("models/demo");
  test::write_text(temp / "ids.json", R"({"ids": [[1, 2, 3], [], [4], [5]]})");
  EXPECT_EQ(read_dataset(temp / "ids.json", model, {.samples = 2, .seqlen = 2}),
            (std::vector<std::vector<std::int32_t>>{{1, 2}, {4}}));
  test::write_text(temp / "rows.jsonl", "{\"text\": \"Once upon a time\"}\n\n{\"text\": \"the end\"}\n");
  const auto rows = read_dataset(temp / "rows.jsonl", model, {.samples = 9, .seqlen = 64});
  ASSERT_EQ(rows.size(), 2U);
  test::write_text(temp / "text.txt", "Once upon a time there was a small dog. Once upon a time there was a big dog.");
  for (const auto& piece : read_dataset(temp / "text.txt", model, {.samples = 3, .seqlen = 4})) {
    EXPECT_EQ(piece.size(), 4U);
  }
  for (const char* bad : {R"({"ids": [[-1]]})", R"({"ids": [["a"]]})", R"({"other": 1})", R"({"ids": []})", "[]"}) {
    test::write_text(temp / "bad.json", bad);
    EXPECT_THROW(read_dataset(temp / "bad.json", model, {}), Error) << bad;
  }
}

}  // namespace
}  // namespace nibble
