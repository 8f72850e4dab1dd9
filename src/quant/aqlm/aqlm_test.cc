// AQLM: dequantized weights with the bits of the library, store() as the inverse, and hostile files.
#include "quant/aqlm/aqlm.h"

#include <gtest/gtest.h>

#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::aqlm {
namespace {

using test::data;
using test::QuantMachine;
using C = test::EditedCheckpoint;

/// One layer of tests/data/aqlm/layers.safetensors.
struct Layer {
  const char* tag;
  std::int64_t codebooks, bits, out_group, in_group;
};
constexpr Layer kLayers[] = {
    {"a", 2, 8, 4, 4}, {"b", 3, 6, 1, 8}, {"c", 1, 10, 1, 16}, {"d", 1, 12, 2, 4}, {"e", 1, 8, 1, 8}};

C layer_checkpoint(const Layer& layer, const std::string& infix = "") {
  const auto all = Checkpoint::open(data("aqlm/layers.safetensors").string());
  C c;
  c.config.set("quantization_config", Json::Object{{"quant_method", "aqlm"},
                                                   {"num_codebooks", layer.codebooks},
                                                   {"nbits_per_codebook", layer.bits},
                                                   {"out_group_size", layer.out_group},
                                                   {"in_group_size", layer.in_group},
                                                   {"linear_weights_not_to_quantize", Json::Array{"lm_head.weight"}}});
  for (const char* part : {"codes", "codebooks", "scales"}) {
    c.tensors["m" + infix + "." + part] = Tensor(all->at(cat(layer.tag, ".", part)));
  }
  c.tensors["m.bias"] = Tensor(all->at(cat(layer.tag, ".bias")));
  return c;
}

void expect_values(const QTensor& w, const View& expected, Exec& exec, const std::string& what) {
  const std::vector<float> got = test::decoded(w, exec), golden = expected.to_f32();
  ASSERT_EQ(got.size(), golden.size()) << what;
  EXPECT_EQ(std::memcmp(got.data(), golden.data(), got.size() * sizeof(float)), 0) << what;
}

TEST(Aqlm, LayersOfManyShapesHaveTheLibrarysBits) {
  const auto all = Checkpoint::open(data("aqlm/layers.safetensors").string());
  for (const Layer& layer : kLayers) {
    const test::TempDir dir;
    layer_checkpoint(layer).write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    ASSERT_NE(store.scheme(), nullptr);
    EXPECT_EQ(store.scheme()->name, "aqlm");
    const std::vector<float> x = all->at(cat(layer.tag, ".x")).to_f32(), y = all->at(cat(layer.tag, ".y")).to_f32();
    for (const Target target : {Target::ref, Target::cpu}) {
      QuantMachine machine(target);
      machine.exec.compute = DType::f32;
      const LinearWeights linear = store.linear("m", machine.exec);
      expect_values(linear.weight, all->at(cat(layer.tag, ".dequant")), machine.exec, layer.tag);
      const std::vector<float> bias = linear.bias->to_f32();
      std::vector<float> got(y.size());
      matmul(linear.weight,
             {.x = x.data(),
              .m = 6,
              .ldx = linear.weight.cols,
              .y = got.data(),
              .ldy = linear.weight.rows,
              .bias = bias.data()},
             machine.exec);
      EXPECT_LT(test::relative_error(got, y), 1e-5) << layer.tag;
    }
    QuantMachine machine;
    test::expect_round_trip(store, &aqlm::store, machine.exec);
  }
}

TEST(Aqlm, AllModelsOfTheLibrary) {
  NIBBLE_NEED_SHARED(root, "fixtures/aqlm_etc");
  for (const std::string name : {"k1n12g8", "k2n8g8", "k4n8g8", "k4n8g16", "k1n16g8_one"}) {
    const WeightStore store(Checkpoint::open((root / ("aqlm-" + name)).string()));
    const auto golden = Checkpoint::open((root / "expected" / ("aqlm-" + name + ".safetensors")).string());
    EXPECT_EQ(store.reader()->modules().size(), name == "k1n16g8_one" ? 1U : 14U);
    int checked = 0;
    for (const Target target : {Target::ref, Target::cpu}) {
      QuantMachine machine(target);
      for (const TensorEntry& entry : golden->tensors()) {
        if (entry.name.rfind("dequant.", 0) != 0) continue;
        expect_values(store.linear(entry.name.substr(8), machine.exec).weight, entry.view, machine.exec,
                      name + " " + entry.name);
        ++checked;
      }
      test::expect_round_trip(store, &aqlm::store, machine.exec);
    }
    EXPECT_GE(checked, 2);
  }
}

TEST(Aqlm, NamesOfTheTrainingCodeAreRead) {
  QuantMachine machine;
  std::vector<float> values[2];
  for (const std::string infix : {"", ".quantized_weight"}) {
    const test::TempDir dir;
    layer_checkpoint(kLayers[4], infix).write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    EXPECT_TRUE(store.reader()->has("m"));
    values[infix.empty() ? 0 : 1] = test::decoded(store.linear("m", machine.exec).weight, machine.exec);
  }
  EXPECT_EQ(values[0], values[1]);
}

template <class F>
std::string refusal(const Layer& layer, F&& edit, LinearSize size = {}) {
  C c = layer_checkpoint(layer);
  edit(c);
  const test::TempDir dir;
  c.write(dir / "model");
  QuantMachine machine;
  return test::refusal(dir / "model", machine.exec, size);
}

TEST(AqlmHostile, TensorsAreRefusedByName) {
  const Layer& b = kLayers[1];  // 3 codebooks of 6 bits: codes [32, 8, 3], codebooks [3, 64, 1, 8]
  EXPECT_EQ(refusal(b, [](C&) {}), "");
  EXPECT_TRUE(test::says(refusal(b, [](C& c) { c.tensors.erase("m.codes"); }), "tensor m.codes is missing"));
  EXPECT_TRUE(test::says(refusal(b, [](C& c) { c.tensors.erase("m.codebooks"); }), "tensor m.codebooks is missing"));
  EXPECT_TRUE(test::says(refusal(b, [](C& c) { c.tensors.erase("m.scales"); }), "tensor m.scales is missing"));
  EXPECT_TRUE(test::says(refusal(b, [](C& c) { c.tensors["m.codes"].data()[5] = std::byte{32}; }),
                         "tensor m.codes: element 5 is 32"));
  EXPECT_TRUE(
      test::says(refusal(b, [](C& c) { c.tensors["m.codes"].data()[700] = std::byte{0xdf}; }), "element 700 is -33"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.codes", DType::i8, {32, 8, 2});
                                 }),
                         "tensor m.codes: expected i8"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.codes", DType::i8, {32, 24});
                                 }),
                         "tensor m.codes: expected i8"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.codes", DType::i16, {32, 8, 3});
                                 }),
                         "tensor m.codes: expected i8"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.codebooks", DType::f16, {3, 32, 1, 8});
                                 }),
                         "tensor m.codebooks: expected floats [3, 64, 1, 8]"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.codebooks", DType::f16, {3, 64, 8, 1});
                                 }),
                         "tensor m.codebooks"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.codebooks", DType::i16, {3, 64, 1, 8});
                                 }),
                         "tensor m.codebooks"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.scales", DType::f16, {31, 1, 1, 1});
                                 }),
                         "tensor m.scales"));
  EXPECT_TRUE(test::says(refusal(b,
                                 [](C& c) {
                                   c.reshape("m.scales", DType::f16, {32, 8, 1, 1});
                                 }),
                         "tensor m.scales"));
  EXPECT_TRUE(test::says(refusal(b, [](C& c) { c.reshape("m.bias", DType::f16, {33}); }), "tensor m.bias"));
  EXPECT_TRUE(test::says(refusal(b, [](C&) {}, {32, 128}), "tensor m.codes: holds a weight of shape [32, 64]"));
}

TEST(AqlmHostile, ConfigsAreRefusedByField) {
  const auto with = [](std::string_view key, const Json& value) {
    return refusal(kLayers[1], [&](C& c) {
      Json config = *c.config.find("quantization_config");
      config.set(key, value);
      c.config.set("quantization_config", config);
    });
  };
  EXPECT_EQ(with("linear_weights_not_to_quantize", Json::Array{"m.weight", "m"}), "") << "what the file holds counts";
  EXPECT_EQ(with("linear_weights_not_to_quantize", nullptr), "");
  EXPECT_TRUE(test::says(with("linear_weights_not_to_quantize", "lm_head"), "linear_weights_not_to_quantize"));
  EXPECT_TRUE(test::says(with("num_codebooks", 0), "num_codebooks: 0"));
  EXPECT_TRUE(test::says(with("num_codebooks", 2), "tensor m.codes"));
  EXPECT_TRUE(test::says(with("nbits_per_codebook", 63), "nbits_per_codebook: 63"));
  EXPECT_TRUE(test::says(with("nbits_per_codebook", 8), "tensor m.codebooks: expected floats [3, 256, 1, 8]"));
  EXPECT_TRUE(test::says(with("in_group_size", -8), "in_group_size: -8"));
  EXPECT_TRUE(test::says(with("in_group_size", "8"), "in_group_size"));
  EXPECT_TRUE(test::says(with("out_group_size", 1.5), "out_group_size"));
}

}  // namespace
}  // namespace nibble::aqlm
