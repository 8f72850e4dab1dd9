// Whole models that optimum-quanto saved, against the logits of the library.
#include <gtest/gtest.h>

#include "base/json.h"
#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

using test::LoadedModel;

class QuantoModel : public testing::TestWithParam<const char*> {
 protected:
  /// Largest relative error over the fixture's two sequences against the set `logits` of the golden file.
  double error_against(const std::string& logits, const test::LoadOptions& options) {
    const Json index = Json::read(test::data("quanto/index.json"));
    const auto golden =
        Checkpoint::open((test::data("quanto/golden") / (std::string(GetParam()) + ".safetensors")).string());
    LoadedModel model(test::data("quanto/ckpt") / GetParam(), options);
    double worst = 0;
    const Json& sequences = *index.get("sequences");
    for (std::size_t i = 0; i < sequences.array("sequences").size(); ++i) {
      std::vector<std::int32_t> ids;
      for (const Json& id : sequences.array("sequences")[i].array("ids")) {
        ids.push_back(static_cast<std::int32_t>(id.integer("id")));
      }
      const View& expected = golden->at("logits." + logits + ".seq" + std::to_string(i));
      worst = std::max(worst, test::relative_error(model.one_shot(ids), expected.to_f32()));
    }
    return worst;
  }
};

TEST_P(QuantoModel, DequantizedWeightsGiveTheLibrarysLogits) {
  EXPECT_LT(error_against("fp32ref", {.target = Target::ref}), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, QuantoModel,
                         testing::Values("quanto_int8_bf16", "quanto_int4_bf16", "quanto_int4_fp32", "quanto_int2_bf16",
                                         "quanto_float8_bf16"),
                         [](const auto& info) { return std::string(info.param); });

using QuantoActivations = QuantoModel;

// As the library before saving: its Calibration removes the quantization of outputs, and int8 sums are exact.
TEST_P(QuantoActivations, Int8InputsGiveTheLibrarysLogits) {
  EXPECT_LT(error_against("lib_input_quant_only", {}), 1e-6);
  EXPECT_LT(error_against("lib_before_save", {}), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, QuantoActivations, testing::Values("quanto_int8_actint8_fp32"));

}  // namespace
}  // namespace nibble
