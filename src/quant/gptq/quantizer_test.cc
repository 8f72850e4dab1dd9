// GPTQ's settings per module: what is stored for each, and what the config says of it.
#include "quant/gptq/quantizer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "support/golden_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::gptq {
namespace {

using test::QuantMachine;

QuantizerConfig config_with(const char* recipe) {
  QuantizerConfig config;
  config.solver.options.bits = 4;
  config.solver.options.group = 32;
  config.solver.algorithm = GridAlgorithm::rtn;
  config.rules = module_rules(parse_module_recipe(Json::parse(recipe, "r"), "r.json"), config.solver.options);
  return config;
}

TEST(GptqQuantizer, EveryModuleHasItsOwnSettings) {
  QuantMachine m;
  Quantizer quantizer(config_with(R"({"a": {"bits": 8, "group_size": -1}, "-:skipped": {},
                                      "b": {"bits": 3, "sym": false, "desc_act": true, "mse": 2.4}})"));
  EXPECT_EQ(quantizer.describe("a", {64, 64}, DType::f32), "int8, group_size -1, sym");
  EXPECT_EQ(quantizer.describe("b", {64, 64}, DType::f32), "int3, group_size 32, asym, desc_act");
  EXPECT_EQ(quantizer.describe("c", {64, 64}, DType::f32), "int4, group_size 32, sym");
  EXPECT_EQ(quantizer.outputs("a", {64, 64}, DType::f32)[1].shape, (Shape{16, 64}));
  EXPECT_EQ(quantizer.outputs("b", {64, 64}, DType::f32)[1].shape, (Shape{6, 64}));
  std::vector<float> weight(64 * 64);
  Rng rng(3);
  for (float& w : weight) w = static_cast<float>(rng.uniform() - 0.5);
  for (const char* module : {"a", "b", "c"}) {
    const SolvedModule solved = quantizer.solve(module, weight, 64, 64, {}, m.exec);
    const auto planned = quantizer.outputs(module, {64, 64}, DType::f32);
    ASSERT_EQ(solved.tensors.size(), planned.size());
    for (std::size_t i = 0; i < planned.size(); ++i) {
      EXPECT_EQ(solved.tensors[i].name, planned[i].name);
      EXPECT_EQ(solved.tensors[i].tensor.shape(), planned[i].shape) << planned[i].name;
    }
  }
}

TEST(GptqQuantizer, TheConfigSaysWhichAsGptqModelReadsIt) {
  const Quantizer quantizer(config_with(R"({"l\\.0\\.": {"bits": 8}, "-:l\\.1": {}, ".*": {"sym": false}})"));
  SelectionResult selected;
  for (const char* name : {"l.0.self_attn.q_proj", "l.0.self_attn.k_proj", "lm_head"}) {
    selected.modules.push_back({name, nullptr, false});
  }
  selected.kept = {"l.0.self_attn.v_proj", "l.1.mlp.gate_proj", "l.1.mlp.up_proj", "l.1.self_attn.o_proj"};
  const Json json = *quantizer.quantization_config(selected);
  EXPECT_TRUE(json.find("lm_head")->boolean("lm_head"));
  EXPECT_EQ(json.find("checkpoint_format")->string(""), "gptq_v2") << "some modules are not symmetric";
  EXPECT_EQ(json.find("dynamic")->dump(),
            R"({"-:^l\\.0\\.self_attn\\.v_proj$": {}, "-:^l\\.1\\.mlp\\.(gate_proj|up_proj|gate_up_proj)$": {}, )"
            R"("-:^l\\.1\\.self_attn\\.o_proj$": {}, "+:l\\.0\\.": {"bits": 8}, "+:.*": {"sym": false}})");
  // What a reader makes of it.
  CheckpointParts parts;
  parts.config = Json::Object{{"quantization_config", json}};
  const auto written = Checkpoint::in_memory(std::move(parts));
  const Config read = parse(QuantConfig(*written));
  EXPECT_EQ(read.of("l.0.self_attn.q_proj")->bits, 8);
  EXPECT_TRUE(read.of("l.0.self_attn.q_proj")->sym);
  EXPECT_FALSE(read.of("lm_head")->sym);
  EXPECT_FALSE(read.of("l.1.mlp.up_proj"));
  EXPECT_FALSE(read.of("l.0.self_attn.v_proj"));
}

TEST(GptqQuantizer, RefusesSettingsThatItCannotStore) {
  for (const char* wrong : {R"({"a": {"bits": 5}})", R"({"a": {"bits": "4"}})", R"({"a": {"bits": 1e300}})",
                            R"({"a": {"group_size": 0}})", R"({"a": {"sym": 1}})", R"({"a": {"mse": -1}})",
                            R"({"a": {"mse": 1e999}})", R"({"a": {"weights": "int4"}})", R"({"a": {"bits": null}})"}) {
    EXPECT_NE(test::error_of([&] { config_with(wrong); }), "") << wrong;
  }
}

}  // namespace
}  // namespace nibble::gptq
