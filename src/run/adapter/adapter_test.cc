// Adapters at run time and merged, against the logits of PEFT (tools/make_adapter_goldens.py and the shared fixtures).
#include "run/adapter/adapter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "run/adapter/merge.h"
#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

std::vector<std::vector<std::int32_t>> sequences_of(const View& ids) {
  std::vector<std::vector<std::int32_t>> out(static_cast<std::size_t>(ids.dim(0)));
  const auto* values = ids.as<std::int64_t>().data();
  for (std::int64_t i = 0; i < ids.count(); ++i)
    out[static_cast<std::size_t>(i / ids.dim(1))].push_back(static_cast<std::int32_t>(values[i]));
  return out;
}

struct Runner {
  explicit Runner(Target target = Target::cpu, int threads = 2)
      : pool(threads), exec{.target = target, .pool = pool, .arena = arena, .compute = DType::f32} {}
  ThreadPool pool;
  Arena arena;
  Exec exec;

  std::vector<float> logits(Model& model, const View& ids) {
    std::vector<float> out;
    for (const std::vector<std::int32_t>& sequence : sequences_of(ids)) {
      const std::vector<std::int32_t> input = model.info().encoder_decoder ? sequence : std::vector<std::int32_t>();
      for_each_logits(model, input, sequence, exec, [&](std::int64_t, std::int64_t rows, const float* values) {
        out.insert(out.end(), values, values + rows * model.info().vocab_size);
      });
    }
    return out;
  }
};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return std::isfinite(largest) ? largest : 1e30;
}

struct Case {
  std::string base;
  std::vector<std::string> adapters;
  std::string golden;
};

/// Of f32 logits, relative to the largest: two layers, sums in another order than PyTorch's.
constexpr double kBound = 2e-5;

/// Of tests/data/adapters.
const std::vector<Case> kCases{
    {"llama", {"llama-rslora"}, "llama-rslora/golden"},
    {"llama", {"llama-dora"}, "llama-dora/golden"},
    {"llama", {"llama-rslora", "llama-dora"}, "llama-rslora+llama-dora"},
    {"llama-v4-bias-tied", {"llama-tied"}, "llama-tied/golden"},
    {"llama-v4-bias-tied", {"llama-lora-bias"}, "llama-lora-bias/golden"},
    {"llama-v4-bias-tied", {"llama-saved"}, "llama-saved/golden"},
    {"gpt2-v4", {"gpt2"}, "gpt2/golden"},
    {"gpt2-v4", {"gpt2-dora"}, "gpt2-dora/golden"},
    {"neox", {"neox"}, "neox/golden"},
    {"bloom", {"bloom"}, "bloom/golden"},
    {"flan-t5", {"flan-t5"}, "flan-t5/golden"},
};

class Goldens : public testing::TestWithParam<Case> {
 protected:
  Goldens() {
    for (const std::string& name : GetParam().adapters)
      uses.push_back({Adapter::open(test::data("adapters/" + name).string()), 1});
    golden = Checkpoint::open(test::data("adapters/" + GetParam().golden + ".safetensors").string());
    base = Checkpoint::open(test::data("models/" + GetParam().base).string());
    logits = golden->at("logits").to_f32();
  }
  std::vector<AdapterUse> uses;
  std::shared_ptr<const Checkpoint> golden, base;
  std::vector<float> logits;
};

TEST_P(Goldens, AtRunTime) {
  for (const Target target : {Target::ref, Target::cpu}) {
    Runner run(target);
    const auto model = load_adapted(base, uses, {}, run.exec);
    EXPECT_LT(test::relative_error(run.logits(*model, golden->at("ids")), logits), kBound);
  }
}

TEST_P(Goldens, Merged) {
  Runner run;
  const test::TempDir dir;
  const AdaptedBase adapted = open_adapted(base, uses, {}, run.exec);
  const MergeResult result = write_merged(adapted, {.out = dir / "out", .dtype = DType::f32}, run.exec);
  EXPECT_GT(result.changed, 0);
  const auto written = Checkpoint::open((dir / "out").string());
  EXPECT_EQ(written->config().find("quantization_config"), nullptr);
  const auto model = Model::load(written, {}, run.exec);
  EXPECT_LT(test::relative_error(run.logits(*model, golden->at("ids")), logits), kBound);

  const auto ids = sequences_of(golden->at("ids"));
  const PerplexityResult cost = measure_divergence({*model, run.exec}, {*adapted.model, run.exec}, ids);
  ASSERT_TRUE(cost.divergence);
  EXPECT_LT(cost.divergence->kl.value, 1e-9);
  EXPECT_EQ(cost.divergence->same_top.value, 1);
}

TEST_P(Goldens, Off) {
  Runner run;
  const auto plain = Model::load(base, {}, run.exec);
  const std::vector<float> expected = run.logits(*plain, golden->at("ids"));
  EXPECT_GT(largest_difference(expected, logits), 0.1);
  std::vector<AdapterUse> off = uses;
  for (AdapterUse& use : off) use.scale = 0;
  EXPECT_EQ(run.logits(*load_adapted(base, off, {}, run.exec), golden->at("ids")), expected);
  // Set and taken away again.
  plain->set_adapters(bind_adapters(*plain, uses, run.exec));
  EXPECT_GT(largest_difference(expected, run.logits(*plain, golden->at("ids"))), 0.1);
  plain->set_adapters(nullptr);
  EXPECT_EQ(run.logits(*plain, golden->at("ids")), expected);
}

TEST_P(Goldens, SameBitsForAnyNumberOfThreads) {
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    Runner run(Target::cpu, threads);
    const std::vector<float> got = run.logits(*load_adapted(base, uses, {}, run.exec), golden->at("ids"));
    if (first.empty()) first = got;
    EXPECT_EQ(got, first) << threads << " threads";
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.golden.substr(0, info.param.golden.find('/'));
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Adapters, Goldens, testing::ValuesIn(kCases), case_name);

TEST(Adapters, ScaleIsLinear) {
  Runner run;
  const auto adapter = Adapter::open(test::data("adapters/llama-rslora").string());
  const auto base = Checkpoint::open(test::data("models/llama").string());
  const auto golden = Checkpoint::open(test::data("adapters/llama-rslora/golden.safetensors").string());
  const std::vector<AdapterUse> halves{{adapter, 0.25}, {adapter, 0.75}};
  const auto model = load_adapted(base, halves, {}, run.exec);
  EXPECT_LT(test::relative_error(run.logits(*model, golden->at("ids")), golden->at("logits").to_f32()), kBound);
}

TEST(Adapters, BaseInBf16Arithmetic) {
  Runner run;
  run.exec.compute = DType::bf16;
  const auto golden = Checkpoint::open(test::data("adapters/llama-rslora/golden.safetensors").string());
  const std::vector<AdapterUse> uses{{Adapter::open(test::data("adapters/llama-rslora").string()), 1}};
  const auto model = load_adapted(Checkpoint::open(test::data("models/llama").string()), uses, {}, run.exec);
  EXPECT_LT(test::relative_error(run.logits(*model, golden->at("ids")), golden->at("logits").to_f32()), 0.05);
}

TEST(Adapters, SharedFixtures) {
  NIBBLE_NEED_SHARED(root, "fixtures/aqlm_etc");
  for (const std::string name : {"lora-std", "lora-rslora", "lora-dora", "lora-full", "lora-std_on_aqlm-k1n12g8"}) {
    SCOPED_TRACE(name);
    const bool aqlm = name.ends_with("k1n12g8");
    const auto base = Checkpoint::open((root / (aqlm ? "aqlm-k1n12g8" : "tiny-llama")).string());
    const auto golden = Checkpoint::open((root / "expected" / (name + ".safetensors")).string());
    const std::vector<AdapterUse> uses{{Adapter::open((root / (aqlm ? "lora-std" : name)).string()), 1}};
    const View& ids = golden->at("input_ids");
    const std::vector<float> logits = golden->at("logits").to_f32();
    for (const Target target : {Target::ref, Target::cpu}) {
      Runner run(target);
      const auto on = load_adapted(base, uses, {}, run.exec);
      EXPECT_LT(largest_difference(run.logits(*on, ids), logits), 2e-5);
      if (aqlm) continue;
      const auto off = Model::load(base, {}, run.exec);
      EXPECT_LT(largest_difference(run.logits(*off, ids), golden->at("logits_disabled").to_f32()), 2e-5);
    }
    Runner run;
    const test::TempDir dir;
    const AdaptedBase adapted = open_adapted(base, uses, {}, run.exec);
    write_merged(adapted, {.out = dir / "out", .dtype = DType::f32}, run.exec);
    const auto written = Checkpoint::open((dir / "out").string());
    const auto model = Model::load(written, {}, run.exec);
    EXPECT_LT(largest_difference(run.logits(*model, ids), logits), 2e-5);
    for (const TensorEntry& entry : golden->tensors()) {
      if (entry.name.rfind("merged.", 0) != 0) continue;
      EXPECT_LT(largest_difference(written->at(entry.name.substr(7)).to_f32(), entry.view.to_f32()), 5e-7);
    }
  }
}

TEST(Adapters, Names) {
  EXPECT_EQ(parse_adapter_name("a/b").path, "a/b");
  EXPECT_EQ(parse_adapter_name("a/b=0.5").path, "a/b");
  EXPECT_EQ(parse_adapter_name("a/b=0.5").scale, 0.5);
  EXPECT_EQ(parse_adapter_name("a=b=-2").path, "a=b");
  for (const char* wrong : {"a=", "a=x", "a=1x", "a=nan", "a=inf"})
    EXPECT_THROW(parse_adapter_name(wrong), Error) << wrong;
}

}  // namespace
}  // namespace nibble
