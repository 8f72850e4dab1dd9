// Every model folder of tests/data/models against the logits that Transformers computed (tools/make_goldens.py), and
// the real models of ../shared in place.
#include "run/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::Goldens;
using test::LoadedModel;
using test::relative_error;

// The f32 bound is the one the project promises. In bf16 nibble rounds only the inputs of products, Transformers every
// intermediate result: nibble's distance from the f32 logits must not be larger than half as much again.
constexpr double kF32Bound = 1e-4;
constexpr double kBf16Ratio = 1.5;

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(test::data("models"))) {
    if (fs::exists(entry.path() / "golden.safetensors")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  fs::path folder() const { return test::data("models") / GetParam(); }
  Goldens goldens() const { return Goldens(folder() / "golden.safetensors"); }
};

TEST_P(Golden, F32OnRefAndCpu) {
  const Goldens g = goldens();
  for (const Target target : {Target::ref, Target::cpu}) {
    LoadedModel m(folder(), {.target = target, .compute = DType::f32});
    for (int i = 0; i < 2; ++i) {
      EXPECT_LT(relative_error(m.one_shot(g.ids(i)), g.logits("f32", i)), kF32Bound) << "sequence " << i;
    }
  }
}

TEST_P(Golden, Bf16IsAsCloseToF32AsTransformersIs) {
  const Goldens g = goldens();
  LoadedModel m(folder(), {.compute = DType::bf16});
  const auto ours = relative_error(m.one_shot(g.ids(0)), g.logits("f32", 0));
  const auto theirs = relative_error(g.logits("bf16", 0), g.logits("f32", 0));
  EXPECT_LT(ours, kBf16Ratio * theirs);
  EXPECT_GT(ours, 0) << "bf16 arithmetic was not used";
}

TEST_P(Golden, ChunksBatchesAndStepsAgreeWithOneShot) {
  const Goldens g = goldens();
  LoadedModel m(folder(), {.compute = DType::f32, .prefill_chunk = 7});
  const std::vector<std::int32_t> a = g.ids(0), b = g.ids(1);
  EXPECT_LT(relative_error(m.one_shot(a), g.logits("f32", 0)), kF32Bound);
  // Token by token, both sequences in one batch as long as both last. Dynamic RoPE needs the final length for that.
  const std::int64_t sa = m->open_sequence(), sb = m->open_sequence();
  std::vector<float> got_a, got_b, logits;
  const std::int64_t vocab = m->info().vocab_size;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::vector<BatchItem> items{{sa, {&a[i], 1}, false, static_cast<std::int64_t>(a.size())}};
    if (i < b.size()) items.push_back({sb, {&b[i], 1}, false, static_cast<std::int64_t>(b.size())});
    m->forward(items, logits, m.exec);
    ASSERT_EQ(logits.size(), items.size() * static_cast<std::size_t>(vocab));
    got_a.insert(got_a.end(), logits.begin(), logits.begin() + vocab);
    if (i < b.size()) got_b.insert(got_b.end(), logits.begin() + vocab, logits.end());
  }
  EXPECT_LT(relative_error(got_a, g.logits("f32", 0)), kF32Bound);
  EXPECT_LT(relative_error(got_b, g.logits("f32", 1)), kF32Bound);
}

TEST_P(Golden, ThreadsDoNotChangeABit) {
  const Goldens g = goldens();
  for (const DType compute : {DType::f32, DType::bf16}) {
    LoadedModel one(folder(), {.compute = compute, .threads = 1}), three(folder(), {.compute = compute, .threads = 3});
    EXPECT_EQ(one.one_shot(g.ids(0)), three.one_shot(g.ids(0)));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden, testing::ValuesIn(model_names()), test_name);

class RealModel : public testing::TestWithParam<std::string> {};

TEST_P(RealModel, LogitsMatchTransformers) {
  NIBBLE_NEED_SHARED(folder, (GetParam() == "nibble-demo" ? "models/" : "models/hf/") + GetParam());
  const Goldens g(test::data("hf_logits") / (GetParam() + ".safetensors"));
  LoadedModel exact(folder, {.compute = DType::f32}), rounded(folder, {.compute = DType::bf16});
  for (int i = 0; i < 2; ++i) {
    const std::vector<std::int64_t> rows = g.rows(i);
    EXPECT_LT(relative_error(exact.rows_of(g.ids(i), rows), g.logits("f32", i)), kF32Bound);
    const auto ours = relative_error(rounded.rows_of(g.ids(i), rows), g.logits("f32", i));
    EXPECT_LT(ours, kBf16Ratio * relative_error(g.logits("bf16", i), g.logits("f32", i)));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RealModel,
                         testing::Values("adi-shakespeare-gpt2", "babyllama361-llama", "capp-gpt2",
                                         "gagan-shakespeare-opt", "poem-llama", "stories260K-llama", "nibble-demo"),
                         test_name);

}  // namespace
}  // namespace nibble
