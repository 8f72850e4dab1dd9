// Wrong and contradictory GPTQ files: one line that names file and tensor or key.
#include <gtest/gtest.h>

#include "quant/gptq/gptq.h"
#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::gptq {
namespace {

using C = test::EditedCheckpoint;
using test::QuantMachine;
using test::says;

/// 64 inputs, 32 outputs, 4 bits, groups of 32, symmetric zero points as v1 has them.
C good() {
  C c;
  c.config.set("quantization_config", Json::Object{{"quant_method", "gptq"},
                                                   {"bits", 4},
                                                   {"group_size", 32},
                                                   {"sym", true},
                                                   {"desc_act", false},
                                                   {"checkpoint_format", "gptq"}});
  c.tensors["m.qweight"] = Tensor({8, 32}, DType::i32);
  c.tensors["m.qzeros"] = Tensor({2, 4}, DType::i32);
  for (std::int32_t& word : c.tensors["m.qzeros"].as<std::int32_t>()) word = 0x77777777;
  c.tensors["m.scales"] = Tensor({2, 32}, DType::f16);
  for (int i = 0; i < 64; ++i)
    store_from_f32(DType::f16, c.tensors["m.scales"].data(), i, 0.5F + 0.25F * static_cast<float>(i));
  c.tensors["m.g_idx"] = Tensor({64}, DType::i32);
  for (std::size_t k = 0; k < 64; ++k) c.tensors["m.g_idx"].as<std::int32_t>()[k] = static_cast<std::int32_t>(k / 32);
  c.tensors["m.bias"] = Tensor({32}, DType::f16);
  return c;
}

template <class F>
std::string refusal(F&& edit, LinearSize size = {}) {
  C checkpoint = good();
  edit(checkpoint);
  const test::TempDir dir;
  checkpoint.write(dir / "model");
  QuantMachine machine;
  return test::refusal(dir / "model", machine.exec, size);
}

/// The refusal when quantization_config has another value (none: the key is gone).
std::string with(const char* key, const Json& value) {
  return refusal([&](C& c) {
    Json config = *c.config.find("quantization_config");
    config.set(key, value);
    c.config.set("quantization_config", config);
  });
}

std::int32_t& entry(C& c, const char* tensor, std::size_t index) {
  return c.tensors.at(tensor).as<std::int32_t>()[index];
}

TEST(GptqHostile, TensorsAreRefusedByName) {
  EXPECT_EQ(refusal([](C&) {}), "");
  EXPECT_EQ(refusal([](C&) {}, {32, 64}), "");
  for (const char* name : {"m.qweight", "m.qzeros", "m.scales", "m.g_idx"}) {
    EXPECT_TRUE(says(refusal([&](C& c) { c.tensors.erase(name); }), cat("tensor ", name, " is missing"))) << name;
    EXPECT_TRUE(says(refusal([&](C& c) { c.reshape(name, DType::i8, {7, 3}); }), cat("tensor ", name, ":"))) << name;
    EXPECT_TRUE(
        says(refusal([&](C& c) { c.reshape(name, c.tensors.at(name).dtype(), {0}); }), cat("tensor ", name, ":")))
        << name;
  }
  EXPECT_TRUE(says(refusal([](C& c) {
                     c.reshape("m.qzeros", DType::i32, {2, 3});
                   }),
                   "tensor m.qzeros: found i32 [2, 3], expected i32 [2, 4]"));
  EXPECT_TRUE(says(refusal([](C& c) {
                     c.reshape("m.scales", DType::f16, {3, 32});
                   }),
                   "tensor m.scales: found f16 [3, 32]"));
  EXPECT_TRUE(says(refusal([](C& c) { c.reshape("m.bias", DType::f16, {31}); }), "tensor m.bias:"));
  EXPECT_TRUE(says(refusal([](C& c) { c.reshape("m.qweight", DType::i32, {8, 31}); }), "tensor m.qweight:"));
  EXPECT_TRUE(says(refusal([](C& c) {
                     c.tensors["m.weight"] = Tensor({32, 64}, DType::f16);
                   }),
                   "stored plain and quantized"));
  EXPECT_TRUE(says(refusal([](C&) {}, {32, 128}), "tensor m.qweight:"));
}

TEST(GptqHostile, GroupIndexesAreChecked) {
  EXPECT_TRUE(
      says(refusal([](C& c) { entry(c, "m.g_idx", 5) = 2; }), "tensor m.g_idx: entry 5 is 2, but there are 2 groups"));
  EXPECT_TRUE(says(refusal([](C& c) { entry(c, "m.g_idx", 5) = -1; }), "tensor m.g_idx: entry 5 is -1"));
  EXPECT_TRUE(says(refusal([](C& c) { entry(c, "m.g_idx", 5) = 1; }), "tensor m.g_idx: puts 31 inputs into group 0"));
  EXPECT_EQ(refusal([](C& c) { std::swap(entry(c, "m.g_idx", 5), entry(c, "m.g_idx", 63)); }), "");
}

TEST(GptqHostile, BlankGroupIndexIsConsecutiveGroupsUnlessActOrderIsPromised) {
  const auto blank = [](C& c) {
    c.reshape("m.g_idx", DType::i32, {64}), c.tensors["m.g_idx"] = Tensor({64}, DType::i32);
  };
  EXPECT_EQ(refusal(blank), "");
  C c = good();
  blank(c);
  const test::TempDir dir;
  c.write(dir / "model");
  QuantMachine m;
  const WeightStore weights(Checkpoint::open((dir / "model").string()));
  EXPECT_TRUE(says(weights.reader()->describe("m"), "blank g_idx read as consecutive groups"));
  const std::vector<StoredTensor> stored = store("m", weights.linear("m", m.exec), m.exec);
  EXPECT_TRUE(test::same_tensor(stored.at(0).tensor, weights.at("m.g_idx")));
  EXPECT_TRUE(says(refusal([&](C& promised) {
                     blank(promised);
                     Json config = *promised.config.find("quantization_config");
                     config.set("desc_act", true);
                     promised.config.set("quantization_config", config);
                   }),
                   "tensor m.g_idx: puts 64 inputs into group 0, which has 32"));
}

TEST(GptqHostile, ConfigsAreRefusedByKey) {
  EXPECT_TRUE(says(with("bits", 5), "config.json: quantization_config: bits: 5 bits"));
  EXPECT_TRUE(says(with("bits", 0), "bits: 0 bits"));
  EXPECT_TRUE(says(with("bits", "four"), "bits: expected"));
  EXPECT_TRUE(says(with("bits", nullptr), "bits is missing"));
  EXPECT_TRUE(says(with("bits", 3), "tensor m.qweight:"));
  EXPECT_TRUE(says(with("bits", 8), "tensor m."));
  EXPECT_TRUE(says(with("group_size", 0), "group_size: 0"));
  EXPECT_TRUE(says(with("group_size", -2), "group_size: -2"));
  EXPECT_TRUE(says(with("group_size", 64), "tensor m.qzeros:"));
  EXPECT_TRUE(says(with("group_size", 1e300), "group_size"));
  EXPECT_TRUE(says(with("sym", 1), "sym: expected"));
  EXPECT_TRUE(says(with("desc_act", "yes"), "desc_act: expected"));
  EXPECT_TRUE(says(with("checkpoint_format", "gptq_p"), "gptq_p is not supported"));
  EXPECT_TRUE(says(with("checkpoint_format", 2), "checkpoint_format: expected"));
  EXPECT_TRUE(says(with("is_marlin_format", true), "is_marlin_format: Marlin"));
  EXPECT_TRUE(says(with("pack_dtype", "int64"), "pack_dtype: int64"));
  EXPECT_EQ(with("exllama_config", Json::Object{{"version", 2}}), "");
  EXPECT_TRUE(says(with("exllama_config", 2), "exllama_config: expected"));
  EXPECT_TRUE(says(with("quant_method", "gptq\n"), "is not supported"));
}

TEST(GptqHostile, TwoConfigsMustAgree) {
  const auto beside = [](const char* text) {
    const C checkpoint = good();
    const test::TempDir dir;
    checkpoint.write(dir / "model");
    test::write_text(dir / "model" / "quantize_config.json", text);
    QuantMachine machine;
    return test::refusal(dir / "model", machine.exec, {});
  };
  EXPECT_EQ(beside(R"({"bits": 4, "group_size": 32})"), "");
  EXPECT_TRUE(says(beside(R"({"bits": 8})"), "bits is 4, but bits in"));
  EXPECT_TRUE(says(beside(R"({"bits": 4, "group_size": 64})"), "group_size is 32, but"));
  EXPECT_TRUE(says(beside(R"({"bits": 4, "desc_act": true})"), "desc_act is false, but"));
  EXPECT_TRUE(says(beside(R"({"bits": 4, "quant_method": "awq"})"), "quant_method is \"gptq\", but"));
  EXPECT_TRUE(says(beside("[4]"), "quantize_config.json: not a JSON object"));
  EXPECT_TRUE(says(beside("{"), "quantize_config.json"));
}

TEST(GptqHostile, DynamicRules) {
  const auto rule = [](const char* pattern, Json value) {
    return with("dynamic", Json::Object{{pattern, std::move(value)}});
  };
  const Json eight = Json::Object{{"bits", 8}}, none = Json::Object{};
  EXPECT_EQ(rule("-:other", none), "");
  EXPECT_EQ(rule(".*m$", Json::Object{{"group_size", 32}}), "");
  EXPECT_EQ(rule("+:x", eight), "");
  EXPECT_TRUE(says(rule("m", eight), "tensor m."));
  EXPECT_TRUE(says(rule("-:m", none), "tensor m.qweight: the config's dynamic rules leave this module unquantized"));
  EXPECT_TRUE(says(rule("m", 8), "not an object"));
  EXPECT_TRUE(says(rule("m", Json::Object{{"bits", 5}}), "\"m\": bits: 5 bits"));
  EXPECT_TRUE(says(rule("(", none), "dynamic: pattern \"(\""));
  EXPECT_TRUE(says(with("dynamic", 4), "dynamic: expected"));
  EXPECT_EQ(with("dynamic", nullptr), "");
  // The first match wins.
  EXPECT_EQ(with("dynamic", Json::Object{{"m", none}, {".*", eight}}), "");
  EXPECT_TRUE(says(with("dynamic", Json::Object{{"m", none}, {"-:.*", none}}), "leave this module unquantized"))
      << "but exclusions come first, as in GPTQModel";
}

TEST(GptqHostile, OverridesChangeSingleModules) {
  C c = good();
  c.tensors["n.qweight"] = Tensor({16, 32}, DType::i32);
  c.tensors["n.qzeros"] = Tensor({1, 8}, DType::i32);
  c.tensors["n.scales"] = Tensor({1, 32}, DType::bf16);
  c.tensors["n.g_idx"] = Tensor({64}, DType::i32);
  Json config = *c.config.find("quantization_config");
  config.set("dynamic", Json::Object{{"+:n$", Json::Object{{"bits", 8}, {"group_size", -1}, {"sym", false}}}});
  c.config.set("quantization_config", config);
  const test::TempDir dir;
  c.write(dir / "model");
  QuantMachine m;
  const WeightStore weights(Checkpoint::open((dir / "model").string()));
  EXPECT_EQ(weights.linear("m", m.exec).weight.bits, 4);
  const LinearWeights n = weights.linear("n", m.exec);
  EXPECT_EQ(n.weight.bits, 8);
  EXPECT_EQ(n.weight.group, 64);
  for (const StoredTensor& tensor : store("n", n, m.exec))
    EXPECT_TRUE(test::same_tensor(tensor.tensor, weights.at(tensor.name)));
}

}  // namespace
}  // namespace nibble::gptq
