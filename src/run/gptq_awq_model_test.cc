// Whole models that AutoGPTQ, GPTQModel and AutoAWQ saved: logits against a float32 Llama on the exact dequantized
// weights, and against the library's own fp16 logits where it has a CPU path.
#include <gtest/gtest.h>

#include "base/json.h"
#include "support/edited_checkpoint.h"
#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// The worst |difference| of the library's fp16 logits that golden.json states.
double library_bound(const fs::path& folder) {
  const Json golden = Json::read(folder / "golden.json");
  const Json* stated = golden.get("max_abs_logit_diff_lib_fp16_vs_ref32");
  return stated == nullptr ? 0 : stated->number("bound");
}

void expect_logits(const fs::path& folder, const fs::path& weights) {
  const auto golden = Checkpoint::open((folder / "golden.safetensors").string());
  const Json tokens = Json::read(test::data("gptq/tokens.json"));
  for (const Target target : {Target::ref, Target::cpu}) {
    test::LoadedModel model(weights, {.target = target});
    int sequence = 0;
    for (const Json& list : tokens.find("eval_token_ids")->array("ids")) {
      std::vector<std::int32_t> ids;
      for (const Json& id : list.array("ids")) ids.push_back(static_cast<std::int32_t>(id.integer("id")));
      const std::vector<float> logits = model.one_shot(ids);
      const std::string number = std::to_string(sequence++);
      EXPECT_LT(test::relative_error(logits, golden->at("logits_ref32." + number).to_f32()), 1e-5) << weights;
      const TensorEntry* library = golden->find("logits_lib." + number);
      if (library == nullptr) continue;
      ASSERT_EQ(static_cast<std::size_t>(library->view.count()), logits.size());
      double worst = 0;
      for (std::size_t i = 0; i < logits.size(); ++i) {
        worst = std::max(worst, std::abs(double{logits[i]} - library->view.at(static_cast<std::int64_t>(i))));
      }
      EXPECT_LT(worst, library_bound(folder) + 1e-3) << weights;
    }
  }
}

TEST(GptqAwqModel, LogitsOfAnActOrderCheckpoint) {
  const fs::path folder = test::data("gptq/ag_b3_g64_sym_desc");
  expect_logits(folder, folder);
}

/// AutoGPTQ writes a bias for every linear, and its modules add it whatever the family says.
TEST(GptqAwqModel, StoredBiasesAreApplied) {
  test::EditedCheckpoint edited(*Checkpoint::open(test::data("gptq/ag_b3_g64_sym_desc").string()));
  const std::vector<std::int32_t> ids{1, 17, 300};
  const auto logits_with = [&](float bias) {
    Tensor& tensor = edited.tensors.at("model.layers.0.mlp.down_proj.bias");
    for (std::int64_t i = 0; i < tensor.count(); ++i)
      store_from_f32(DType::f16, tensor.data(), i, i % 2 == 0 ? bias : 0);
    const test::TempDir dir;
    edited.write(dir / "model");
    return test::LoadedModel(dir / "model").one_shot(ids);
  };
  const std::vector<float> plain = test::LoadedModel(test::data("gptq/ag_b3_g64_sym_desc")).one_shot(ids);
  EXPECT_EQ(logits_with(0), plain);
  EXPECT_GT(test::relative_error(logits_with(1), plain), 0.01);
}

/// `lm_head: true`: the head's tensors decide, as for every module.
TEST(GptqAwqModel, AQuantizedHeadIsRead) {
  test::EditedCheckpoint plain(*Checkpoint::open(test::data("gptq/ag_b3_g64_sym_desc").string()));
  const std::string gate = "model.layers.0.mlp.gate_proj";
  ThreadPool pool(1);
  Arena arena;
  Exec exec{.target = Target::ref, .pool = pool, .arena = arena};
  const WeightStore weights(Checkpoint::open(test::data("gptq/ag_b3_g64_sym_desc").string()));
  const QTensor w = weights.linear(gate, exec).weight;
  ASSERT_EQ((Shape{w.rows, w.cols}), plain.tensors.at("lm_head.weight").shape());
  test::EditedCheckpoint quantized(plain);
  quantized.tensors.erase("lm_head.weight");
  for (const char* part : {"qweight", "qzeros", "scales", "g_idx"}) {
    quantized.tensors[cat("lm_head.", part)] = Tensor(plain.tensors.at(cat(gate, ".", part)).view());
  }
  Tensor head({w.rows, w.cols}, DType::f32);
  decode(w, 0, w.rows, head.as<float>().data(), exec);
  plain.tensors["lm_head.weight"] = head;
  const test::TempDir dir;
  plain.write(dir / "plain");
  quantized.write(dir / "quantized");
  const std::vector<std::int32_t> ids{1, 17, 300};
  EXPECT_LT(test::relative_error(test::LoadedModel(dir / "quantized").one_shot(ids),
                                 test::LoadedModel(dir / "plain").one_shot(ids)),
            1e-5);
}

TEST(GptqAwqModel, LogitsOfEveryCheckpoint) {
  NIBBLE_NEED_SHARED(root, "fixtures/gptq_awq/ckpt");
  int found = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (!fs::exists(entry.path() / "golden.safetensors")) continue;
    const fs::path single = entry.path() / "model.safetensors";
    expect_logits(entry.path(), fs::exists(single) ? single : entry.path());
    ++found;
  }
  EXPECT_EQ(found, 12);
}

}  // namespace
}  // namespace nibble
