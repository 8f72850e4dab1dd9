// LLM.int8: the library's dequantized bits, its products, its bytes.
#include "quant/bnb8/bnb8.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::bnb8 {
namespace {

namespace fs = std::filesystem;
using test::data;
using test::QuantMachine;

TEST(Bnb8, AllVariantsOfTheLibrary) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  const Json index = Json::read(data("bnb/index.json"));
  int checked = 0;
  for (const Json& variant : index.find("variants")->array("variants")) {
    if (variant.find("family")->string("family") != "bnb8") continue;
    const WeightStore store(Checkpoint::open((root / variant.find("ckpt")->string("ckpt")).string()));
    ASSERT_NE(store.scheme(), nullptr);
    EXPECT_EQ(store.scheme()->name, "bnb8");
    const Json::Object& digests = variant.find("dequant_sha256_fp32")->object("digests");
    EXPECT_EQ(store.reader()->modules().size(), digests.size());
    for (const Target target : {Target::ref, Target::cpu}) {
      QuantMachine machine(target);
      for (const auto& [module, digest] : digests) {
        EXPECT_EQ(test::digest_of(store.linear(module, machine.exec).weight, machine.exec), digest.string("digest"))
            << module;
      }
      test::expect_round_trip(store, &bnb8::store, machine.exec);
    }
    ++checked;
  }
  EXPECT_EQ(checked, 2);
}

/// A checkpoint of the one module "m".
test::EditedCheckpoint one_module(const View& codes, const View& absmax, double threshold) {
  test::EditedCheckpoint out;
  out.config.set("quantization_config", Json::Object{{"quant_method", "bitsandbytes"},
                                                     {"load_in_8bit", true},
                                                     {"llm_int8_threshold", threshold},
                                                     {"llm_int8_enable_fp32_cpu_offload", true}});
  out.tensors["m.weight"] = Tensor(codes);
  out.tensors["m.SCB"] = Tensor(absmax);
  out.tensors["m.weight_format"] = Tensor({}, DType::u8);
  return out;
}

TEST(Bnb8, RowsWithZerosSubnormalsNanAndInfinity) {
  const auto vectors = Checkpoint::open(data("bnb/vectors/bnb_int8.safetensors").string());
  for (const std::string dtype : {"f32", "bf16", "f16"}) {
    const test::TempDir dir;
    one_module(vectors->at("w." + dtype + ".CB"), vectors->at("w." + dtype + ".SCB"), 6).write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    const View& expected = vectors->at("w." + dtype + ".dequant");
    for (const Target target : {Target::ref, Target::cpu}) {
      QuantMachine machine(target);
      const std::vector<float> got = test::decoded(store.linear("m", machine.exec).weight, machine.exec);
      for (std::size_t i = 0; i < got.size(); ++i) {
        const float library = expected.at(static_cast<std::int64_t>(i));
        ASSERT_TRUE(got[i] == library || (std::isnan(got[i]) && std::isnan(library))) << dtype << " element " << i;
      }
    }
  }
}

/// The library's forward pass: y of the vectors "fwd.<dtype>.t<threshold>.r<tokens>.<n, or b with bias>".
TEST(Bnb8, ProductsAreTheLibrarys) {
  const auto vectors = Checkpoint::open(data("bnb/vectors/bnb_int8.safetensors").string());
  int checked = 0;
  for (const auto& [dtype, bound] :
       {std::pair{DType::f32, 2e-6}, std::pair{DType::bf16, 0.0}, std::pair{DType::f16, 0.0}}) {
    for (const int threshold : {0, 6}) {
      const test::TempDir dir;
      one_module(vectors->at("fwd.CB"), vectors->at("fwd.SCB"), threshold).write(dir / "model");
      const WeightStore store(Checkpoint::open((dir / "model").string()));
      for (const int tokens : {1, 5}) {
        for (const bool with_bias : {false, true}) {
          const std::string key = cat("fwd.", name_of(dtype), ".t", threshold, ".r", tokens, with_bias ? ".b" : ".n");
          const View& expected = vectors->at(key + ".y");
          const std::vector<float> x = vectors->at(cat("fwd.", name_of(dtype), ".x")).to_f32();
          std::vector<float> bias = vectors->at("fwd.bias").to_f32();
          for (float& value : bias) value = round_to(dtype, value);
          for (const Target target : {Target::ref, Target::cpu}) {
            QuantMachine machine(target);
            machine.exec.compute = dtype;
            const QTensor w = store.linear("m", machine.exec).weight;
            std::vector<float> y(static_cast<std::size_t>(expected.count()));
            matmul(w,
                   {.x = x.data(),
                    .m = tokens,
                    .ldx = w.cols,
                    .y = y.data(),
                    .ldy = w.rows,
                    .bias = with_bias ? bias.data() : nullptr},
                   machine.exec);
            for (std::size_t i = 0; i < y.size(); ++i) {
              ASSERT_NEAR(y[i], expected.at(static_cast<std::int64_t>(i)), bound) << key << " element " << i;
            }
          }
          ++checked;
        }
      }
    }
  }
  EXPECT_EQ(checked, 24);
}

class Hostile : public testing::Test {
 protected:
  Hostile() : good_(one_module(Tensor({6, 8}, DType::i8), ones(6), 6)) {
    good_.tensors["m.bias"] = Tensor({6}, DType::f16);
  }

  static Tensor ones(std::int64_t count) {
    Tensor out({count}, DType::f32);
    for (float& value : out.as<float>()) value = 1;
    return out;
  }

  /// What opening says after `edit`.
  template <class F>
  std::string refusal(F&& edit, LinearSize size = {}) {
    test::EditedCheckpoint copy = good_;
    edit(copy);
    const test::TempDir dir;
    copy.write(dir / "model");
    QuantMachine machine;
    return test::refusal(dir / "model", machine.exec, size);
  }
  static void set(test::EditedCheckpoint& c, std::string_view key, Json value) {
    Json config = *c.config.find("quantization_config");
    config.set(key, std::move(value));
    c.config.set("quantization_config", config);
  }
  test::EditedCheckpoint good_;
};

TEST_F(Hostile, AreRefusedByName) {
  using C = test::EditedCheckpoint;
  EXPECT_EQ(refusal([](C&) {}), "");
  EXPECT_EQ(refusal([](C& c) { c.tensors.erase("m.weight_format"); }), "") << "old files leave it out";
  EXPECT_EQ(refusal([](C& c) { c.config.erase("quantization_config"); }), "") << "the tensors say it too";
  EXPECT_TRUE(test::says(refusal([](C& c) { c.tensors.erase("m.SCB"); }), "tensor m.SCB is missing"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.tensors.erase("m.weight"); }), "tensor m.weight is missing"));
  EXPECT_TRUE(
      test::says(refusal([](C& c) { c.reshape("m.SCB", DType::f32, {5}); }), "tensor m.SCB: expected 6 f32 elements"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.reshape("m.SCB", DType::f16, {6}); }), "tensor m.SCB"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.tensors["m.SCB"].as<float>()[2] = -1; }), "tensor m.SCB: row 2"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.reshape("m.weight", DType::u8, {6, 8}); }), "tensor m.weight"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.reshape("m.weight", DType::i8, {48}); }),
                         "tensor m.weight: expected an i8 matrix"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.tensors["m.weight_format"].data()[0] = std::byte{2}; }),
                         "tensor m.weight_format: 2"));
  EXPECT_TRUE(test::says(refusal([](C& c) { c.reshape("m.bias", DType::f16, {7}); }), "tensor m.bias"));
  EXPECT_TRUE(test::says(refusal([](C&) {}, {6, 9}), "tensor m.weight: holds a weight of shape [6, 8]"));
}

TEST_F(Hostile, ConfigsAreRefusedByField) {
  using C = test::EditedCheckpoint;
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "load_in_4bit", true); }), "exactly one must be true"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "load_in_8bit", false); }), "exactly one must be true"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "load_in_8bit", "yes"); }), "quantization_config.load_in_8bit"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "llm_int8_threshold", -1.0); }), "llm_int8_threshold: -1"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "llm_int8_threshold", "6"); }), "llm_int8_threshold"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "llm_int8_threshold", 1e300); }), "llm_int8_threshold"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "llm_int8_skip_modules", "lm_head"); }), "llm_int8_skip_modules"));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "llm_int8_skip_modules", Json::Array{"("}); }),
                         "llm_int8_skip_modules: pattern ("));
  EXPECT_TRUE(test::says(refusal([](C& c) { set(c, "bnb_4bit_compute_dtype", "int8"); }), "bnb_4bit_compute_dtype"));
}

TEST(BnbSkip, ExplicitListReplacesTheDefault) {
  const auto config = [](const Json& skip) {
    return bnb::parse_config(Json::Object{{"load_in_8bit", true}, {"llm_int8_skip_modules", skip}}, "config.json");
  };
  const bnb::SkipFacts facts{
      .output_embedding = "lm_head", .tied = {"model.embed_tokens"}, .last_parameter_module = "model.norm"};
  const bnb::Config plain = config(nullptr),
                    listed = config(Json::Array{"visual", "up_proj", R"(model\.layers\.[02])"});
  EXPECT_TRUE(bnb::skips(plain, facts, "lm_head"));
  EXPECT_TRUE(bnb::skips(plain, facts, "model.embed_tokens"));
  EXPECT_TRUE(bnb::skips(plain, facts, "model.norm"));
  EXPECT_FALSE(bnb::skips(plain, facts, "model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(bnb::skips(listed, facts, "lm_head")) << "the default is not added to a list";
  EXPECT_TRUE(bnb::skips(listed, facts, "visual.blocks.0.fc"));
  EXPECT_FALSE(bnb::skips(listed, facts, "visually.fc"));
  EXPECT_TRUE(bnb::skips(listed, facts, "model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(bnb::skips(listed, facts, "model.layers.1.mlp.down_proj"));
  EXPECT_TRUE(bnb::skips(listed, facts, "model.layers.2.mlp.down_proj"));
  EXPECT_FALSE(bnb::skips(listed, facts, "model.layers.20.mlp.down_proj"));
  const bnb::Config evil = config(Json::Array{"(a*)*b"});
  EXPECT_FALSE(bnb::skips(evil, facts, std::string(5000, 'a'))) << "the match limit ends it";
}

}  // namespace
}  // namespace nibble::bnb8
