// Every model folder of tests/data/models against the logits that Transformers computed (tools/make_goldens.py), and
// the real models of ../shared in place.
#include "run/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/json.h"
#include "support/edited_checkpoint.h"
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

// A small model whose files a test may change before it is loaded.
class BadModel : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"config.json", "model.safetensors"}) {
      fs::copy_file(test::data("models/llama") / name, dir_ / name);
    }
    config_ = Json::read(dir_ / "config.json");
  }
  std::string load_error() {
    test::write_text(dir_ / "config.json", config_.dump());
    try {
      LoadedModel model(dir_.path());
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 2);
      return error.what();
    }
    return "";
  }
  test::TempDir dir_;
  Json config_;
};

TEST_F(BadModel, NamesTheTensor) {
  EXPECT_EQ(load_error(), "");
  config_.set("vocab_size", 97);
  EXPECT_NE(load_error().find("tensor model.embed_tokens.weight has shape [96, 48], but config.json asks for [97, 48]"),
            std::string::npos);
  config_.set("vocab_size", 96);
  config_.set("num_hidden_layers", 3);
  EXPECT_NE(load_error().find("tensor model.layers.2.input_layernorm.weight is missing"), std::string::npos);
  config_.set("num_hidden_layers", 2);
  config_.set("attention_bias", true);
  EXPECT_NE(load_error().find("tensor model.layers.0.self_attn.q_proj.bias is missing"), std::string::npos);
  config_.set("architectures", Json::Array{"GPT2LMHeadModel"});
  EXPECT_NE(load_error().find("tensor transformer.wte.weight is missing"), std::string::npos);
}

TEST(Model, NamesTheTensorOfAnExpert) {
  const auto error_of = [](const std::string& name, const std::string& field, int value) {
    const test::TempDir dir;
    fs::copy_file(test::data("models") / name / "model.safetensors", dir / "model.safetensors");
    Json config = Json::read(test::data("models") / name / "config.json");
    config.set(field, value);
    test::write_text(dir / "config.json", config.dump());
    try {
      LoadedModel model(dir.path());
    } catch (const Error& error) {
      return std::string(error.what()).substr(dir.path().string().size());
    }
    return std::string();
  };
  EXPECT_EQ(error_of("mixtral", "num_local_experts", 5),
            ": tensor model.layers.0.mlp.gate.weight has shape [4, 32], but config.json asks for [5, 32]");
  EXPECT_EQ(
      error_of("mixtral", "intermediate_size", 41),
      ": tensor model.layers.0.mlp.experts.gate_up_proj has shape [4, 80, 32], but config.json asks for [4, 82, 32]");
  EXPECT_EQ(error_of("mixtral-v4-window", "intermediate_size", 41),
            ": tensor model.layers.0.block_sparse_moe.experts.0.w1.weight has shape [40, 32], but config.json asks for "
            "[41, 32]");
  EXPECT_EQ(error_of("mixtral", "num_experts_per_tok", 5),
            "/config.json: field num_experts_per_tok is 5, but there are 4 experts");
}

// AutoAWQ divides the activation of families without a gate by scales that it multiplied into the next weight.
TEST(Model, ScaledActivationsUndoWhatTheNextWeightWasScaledBy) {
  for (const std::string name : {"bloom", "neox", "starcoder2"}) {
    const fs::path folder = test::data("models") / name;
    test::EditedCheckpoint edited(*Checkpoint::open(folder.string()));
    const std::string layer = name == "bloom"  ? "transformer.h.1.mlp."
                              : name == "neox" ? "gpt_neox.layers.1.mlp."
                                               : "model.layers.1.mlp.";
    Tensor& down = edited.tensors.at(layer + (name == "starcoder2" ? "c_proj.weight" : "dense_4h_to_h.weight"));
    const std::int64_t width = down.shape()[1];
    Tensor scales({width}, DType::f32), scaled(down.shape(), DType::f32);
    for (std::int64_t i = 0; i < width; ++i) scales.as<float>()[static_cast<std::size_t>(i)] = i % 3 == 0 ? 4 : 0.5F;
    for (std::int64_t i = 0; i < down.count(); ++i) {
      scaled.as<float>()[static_cast<std::size_t>(i)] = down.view().at(i) * scales.view().at(i % width);
    }
    down = scaled;
    edited.tensors.emplace(layer + (name == "bloom" ? "gelu_impl.scales" : "act.scales"), scales);
    const test::TempDir dir;
    edited.write(dir / "scaled");
    const Goldens g(folder / "golden.safetensors");
    EXPECT_LT(relative_error(LoadedModel(dir / "scaled").one_shot(g.ids(0)), g.logits("f32", 0)), kF32Bound) << name;
    edited.tensors.at(layer + (name == "bloom" ? "gelu_impl.scales" : "act.scales")) = Tensor({width + 1}, DType::f32);
    edited.write(dir / "wrong");
    EXPECT_THROW(LoadedModel(dir / "wrong"), Error);
  }
}

TEST(Model, RefusesWhatItCannotCompute) {
  LoadedModel m(test::data("models/llama"));
  const auto error_of = [&](std::vector<std::int32_t> ids) {
    try {
      m.one_shot(ids);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(error_of({0, 96}), "token id 96 is outside the model's vocabulary of 96");
  EXPECT_NE(error_of({-1}), "");
  EXPECT_NE(error_of({}), "");
  EXPECT_EQ(error_of(std::vector<std::int32_t>(65, 3)), "the sequence would have 65 tokens, but the context holds 64");
  EXPECT_EQ(error_of(std::vector<std::int32_t>(64, 3)), "");
}

TEST(Model, ContextCanBeChosen) {
  const std::vector<std::int32_t> ids(70, 3);
  LoadedModel longer(test::data("models/llama"), {.max_context = 70});
  EXPECT_EQ(longer.one_shot(ids).size(), 70u * 96);
  LoadedModel learned(test::data("models/opt"), {.max_context = 70});
  EXPECT_EQ(learned->info().context_length, 64);
  LoadedModel alibi(test::data("models/bloom"), {.max_context = 4096});
  EXPECT_EQ(alibi->info().context_length, 4096);
  EXPECT_THROW(learned.one_shot(ids), Error);
}

TEST(Model, ForkAndTruncateGoOnFromThere) {
  LoadedModel m(test::data("models/mistral"));
  const std::vector<std::int32_t> ids = Goldens(test::data("models/mistral/golden.safetensors")).ids(0);
  const auto step = [&](std::int64_t sequence, std::size_t from, std::size_t count) {
    const BatchItem item{sequence, std::span(ids).subspan(from, count), false, 0};
    std::vector<float> logits;
    m->forward({&item, 1}, logits, m.exec);
    return logits;
  };
  const std::int64_t a = m->open_sequence();
  step(a, 0, 20);
  const std::int64_t b = m->fork_sequence(a, 12);
  const std::vector<float> expected = step(a, 20, 1);
  EXPECT_LT(relative_error(step(b, 12, 9), expected), kF32Bound);
  m->truncate_sequence(a, 7);
  EXPECT_LT(relative_error(step(a, 7, 14), expected), kF32Bound);
  EXPECT_EQ(m->sequence_length(a), 21);
}

TEST(Model, SmallerKvElementsCostLittle) {
  const fs::path folder = test::data("models/qwen3");
  const Goldens g(folder / "golden.safetensors");
  LoadedModel f16(folder, {.kv_dtype = DType::f16}), bf16(folder, {.kv_dtype = DType::bf16});
  // Keys and values of about 1 rounded to 11 and 8 bits.
  EXPECT_LT(relative_error(f16.one_shot(g.ids(0)), g.logits("f32", 0)), 2e-3);
  EXPECT_LT(relative_error(bf16.one_shot(g.ids(0)), g.logits("f32", 0)), 1.6e-2);
}

TEST(Model, CountsParametersOnce) {
  // Two layers of hidden 48, inner 80, 4 heads and 2 key/value heads of 16, tied embeddings of 96.
  const std::int64_t layer = 2 * 48 * 64 + 2 * 48 * 32 + 3 * 48 * 80 + 2 * 48 + 2 * 16;
  EXPECT_EQ(LoadedModel(test::data("models/qwen3"))->info().parameters, 96 * 48 + 2 * layer + 48);
  // Mixtral: hidden 32, inner 40, 4 experts, 4 heads and 2 key/value heads of 8.
  const std::int64_t sparse = 2 * 32 * 32 + 2 * 16 * 32 + 4 * 32 + 4 * 3 * 32 * 40 + 2 * 32;
  EXPECT_EQ(LoadedModel(test::data("models/mixtral"))->info().parameters, 2 * 96 * 32 + 2 * sparse + 32);
}

TEST(Model, ForEachLogitsVisitsEveryPosition) {
  const fs::path folder = test::data("models/llama-dynamic");
  const Goldens g(folder / "golden.safetensors");
  LoadedModel m(folder, {.prefill_chunk = 5});
  std::vector<float> got;
  for_each_logits(*m.model, g.ids(0), m.exec, [&](std::int64_t first, std::int64_t rows, const float* logits) {
    EXPECT_EQ(first * 96, static_cast<std::int64_t>(got.size()));
    got.insert(got.end(), logits, logits + rows * 96);
  });
  EXPECT_LT(relative_error(got, g.logits("f32", 0)), kF32Bound);
}

}  // namespace
}  // namespace nibble
