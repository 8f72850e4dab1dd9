// Wrong, contradictory and known-broken 4-bit files: repaired where the meaning is certain, else one line that names
// the tensor.
#include <gtest/gtest.h>

#include <cmath>

#include "quant/bnb4/bnb4.h"
#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::bnb4 {
namespace {

using test::QuantMachine;
using C = test::EditedCheckpoint;

constexpr const char* kState = "m.weight.quant_state.bitsandbytes__nf4";

/// A weight of 4 x 64 in blocks of 32, with a bias.
C plain_checkpoint() {
  C c;
  c.config.set("quantization_config",
               Json::Object{{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", "nf4"}});
  c.tensors["m.weight"] = Tensor({128, 1}, DType::u8);
  for (int i = 0; i < 128; ++i) c.tensors["m.weight"].data()[i] = static_cast<std::byte>(37 * i);
  c.tensors["m.weight.absmax"] = Tensor({8}, DType::f32);
  for (int i = 0; i < 8; ++i)
    c.tensors["m.weight.absmax"].as<float>()[static_cast<std::size_t>(i)] = 1.0F + 0.25F * static_cast<float>(i);
  c.tensors["m.weight.quant_map"] = Tensor({16}, DType::f32);
  std::copy_n(lut4::kNf4.begin(), 16, c.tensors["m.weight.quant_map"].as<float>().begin());
  c.set_text(kState, R"({"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": [4, 64]})");
  c.tensors["m.bias"] = Tensor({4}, DType::f32);
  return c;
}

C nested_checkpoint() {
  C c = plain_checkpoint();
  c.tensors["m.weight.absmax"] = Tensor({8}, DType::u8);
  c.tensors["m.weight.nested_absmax"] = Tensor({1}, DType::f32);
  c.tensors["m.weight.nested_quant_map"] = Tensor({256}, DType::f32);
  c.set_text(kState,
             R"({"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": [4, 64], "nested_blocksize": 256, )"
             R"("nested_dtype": "float32", "nested_offset": 0.05337163060903549})");
  return c;
}

template <class F>
std::string refusal(C checkpoint, F&& edit, LinearSize size = {}) {
  edit(checkpoint);
  const test::TempDir dir;
  checkpoint.write(dir / "model");
  QuantMachine machine;
  return test::refusal(dir / "model", machine.exec, size);
}

TEST(Bnb4Hostile, TensorsAreRefusedByName) {
  const C plain = plain_checkpoint();
  EXPECT_EQ(refusal(plain, [](C&) {}), "");
  EXPECT_EQ(refusal(plain, [](C& c) { c.config.erase("quantization_config"); }), "") << "the tensors say it too";
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors.erase("m.weight"); }), "tensor m.weight is missing"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors.erase("m.weight.absmax"); }),
                         "tensor m.weight.absmax is missing"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors.erase("m.weight.quant_map"); }),
                         "tensor m.weight.quant_map is missing"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors.erase(kState); }), "tensor m.weight: its quant_state"));
  EXPECT_TRUE(test::says(refusal(plain,
                                 [](C& c) {
                                   c.reshape("m.weight", DType::u8, {127, 1});
                                 }),
                         "tensor m.weight: expected 128 bytes"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.reshape("m.weight.absmax", DType::f32, {7}); }),
                         "tensor m.weight.absmax: expected 8 f32"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.reshape("m.weight.absmax", DType::f32, {9}); }),
                         "tensor m.weight.absmax: expected 8 f32"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.reshape("m.weight.absmax", DType::u8, {8}); }),
                         "tensor m.weight.absmax: expected 8 f32"));
  EXPECT_TRUE(test::says(refusal(plain,
                                 [](C& c) {
                                   c.reshape("m.weight.absmax", DType::bf16, {4, 2});
                                 }),
                         "tensor m.weight.absmax"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.reshape("m.weight.quant_map", DType::f32, {15}); }),
                         "tensor m.weight.quant_map"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors["m.weight.quant_map"].as<float>()[3] = 0; }),
                         "quant_map: is not the table of nf4"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors["m.weight.quant_map"].as<float>()[3] = NAN; }),
                         "quant_map: is not the table of nf4"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.reshape("m.bias", DType::f32, {5}); }), "tensor m.bias"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors["m.weight.nested_absmax"] = Tensor({1}, DType::f32); }),
                         "says nothing of nesting"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors["m.weight.quant_state.other"] = Tensor({1}, DType::u8); }),
                         "no known kind"));
  EXPECT_TRUE(test::says(refusal(plain, [](C& c) { c.tensors["m.weight.scale"] = Tensor({1}, DType::u8); }),
                         "is no part of a bitsandbytes weight"));
  EXPECT_TRUE(
      test::says(refusal(plain, [](C& c) { c.tensors["m.weight.quant_state.bitsandbytes__fp4"] = c.tensors[kState]; }),
                 "a second quant_state"));
  EXPECT_TRUE(test::says(refusal(plain, [](C&) {}, {4, 65}), "holds a weight of shape [4, 64]"));
}

TEST(Bnb4Hostile, NestedTensorsAreRefusedByName) {
  const C nested = nested_checkpoint();
  EXPECT_EQ(refusal(nested, [](C&) {}), "");
  EXPECT_TRUE(test::says(refusal(nested, [](C& c) { c.tensors.erase("m.weight.nested_absmax"); }),
                         "tensor m.weight.nested_absmax is missing"));
  EXPECT_TRUE(test::says(refusal(nested, [](C& c) { c.tensors.erase("m.weight.nested_quant_map"); }),
                         "tensor m.weight.nested_quant_map is missing"));
  EXPECT_TRUE(test::says(refusal(nested, [](C& c) { c.reshape("m.weight.nested_absmax", DType::f32, {2}); }),
                         "tensor m.weight.nested_absmax"));
  EXPECT_TRUE(test::says(refusal(nested, [](C& c) { c.reshape("m.weight.nested_quant_map", DType::f32, {16}); }),
                         "tensor m.weight.nested_quant_map"));
  EXPECT_TRUE(test::says(refusal(nested, [](C& c) { c.reshape("m.weight.absmax", DType::u8, {9}); }),
                         "tensor m.weight.absmax: expected 8 u8"));
  EXPECT_TRUE(test::says(refusal(nested, [](C& c) { c.reshape("m.weight.absmax", DType::f32, {8}); }),
                         "tensor m.weight.absmax: expected 8 u8"));
}

TEST(Bnb4Hostile, QuantStatesAreRefusedByField) {
  const auto with = [](const std::string& from, const std::string& to) {
    return refusal(nested_checkpoint(), [&](C& c) {
      const Tensor& state = c.tensors[kState];
      std::string text(reinterpret_cast<const char*>(state.data()), static_cast<std::size_t>(state.count()));
      const std::size_t at = text.find(from);
      ASSERT_NE(at, std::string::npos);
      c.set_text(kState, text.replace(at, from.size(), to));
    });
  };
  EXPECT_TRUE(test::says(with("\"blocksize\": 32", "\"blocksize\": 0"), "blocksize: 0"));
  EXPECT_TRUE(test::says(with("\"blocksize\": 32", "\"blocksize\": 48"), "blocksize: 48"));
  EXPECT_TRUE(test::says(with("\"blocksize\": 32", "\"blocksize\": -64"), "blocksize: -64"));
  EXPECT_TRUE(test::says(with("\"blocksize\": 32, ", ""), "blocksize is missing"));
  EXPECT_TRUE(test::says(with("[4, 64]", "[4, 65]"), "tensor m.weight: expected 130 bytes"));
  EXPECT_TRUE(test::says(with("[4, 64]", "[4]"), "shape: 1 dimensions"));
  EXPECT_TRUE(test::says(with("[4, 64]", "[-4, -64]"), "shape: [-4, -64]"));
  EXPECT_TRUE(test::says(with("[4, 64]", "[4000000000000, 4000000000000]"), "shape: [4000000000000"));
  EXPECT_TRUE(test::says(with("\"float32\", \"shape\"", "\"int8\", \"shape\""), "dtype: int8"));
  EXPECT_TRUE(test::says(with("\"nf4\"", "\"fp4\""), "its name and its quant_type fp4 disagree"));
  EXPECT_TRUE(test::says(with("\"nf4\"", "\"nf5\""), "quant_type: nf5"));
  EXPECT_TRUE(test::says(with("\"nested_blocksize\": 256", "\"nested_blocksize\": 3"), "nested_blocksize: 3"));
  EXPECT_TRUE(test::says(with("0.05337163060903549", "1e300"), "nested_offset"));
  EXPECT_TRUE(test::says(with("0.05337163060903549", "NaN"), "not valid JSON"));
  EXPECT_TRUE(test::says(with("\"nested_dtype\": \"float32\", ", ""), "nested_dtype is missing"));
  EXPECT_TRUE(test::says(with("\"blocksize\"", "\"block_size\""), "unknown field block_size"));
  EXPECT_TRUE(test::says(with("{", "\xff"), kState));
  EXPECT_TRUE(test::says(refusal(plain_checkpoint(), [](C& c) { c.tensors[kState] = Tensor({70000}, DType::u8); }),
                         "the bytes of a JSON text"));
}

TEST(Bnb4Hostile, ConfigsAreRefusedByField) {
  const auto with = [](std::string_view key, const Json& value) {
    return refusal(plain_checkpoint(), [&](C& c) {
      Json config = *c.config.find("quantization_config");
      config.set(key, value);
      c.config.set("quantization_config", config);
    });
  };
  EXPECT_EQ(with("llm_int8_skip_modules", Json::Array{"m"}), "") << "what the file holds counts";
  EXPECT_EQ(with("llm_int8_enable_fp32_cpu_offload", true), "");
  EXPECT_EQ(with("quant_method", nullptr), "") << "configs of 2023 have none";
  EXPECT_TRUE(test::says(with("bnb_4bit_quant_type", "fp4"), "config.json says bnb_4bit_quant_type fp4"));
  EXPECT_TRUE(test::says(with("bnb_4bit_quant_type", "nf3"), "bnb_4bit_quant_type: nf3"));
  EXPECT_TRUE(test::says(with("bnb_4bit_quant_storage", "complex64"), "bnb_4bit_quant_storage"));
  EXPECT_TRUE(test::says(with("load_in_8bit", true), "exactly one must be true"));
  EXPECT_TRUE(test::says(with("load_in_4bit", 1), "quantization_config.load_in_4bit"));
}

TEST(Bnb4, EveryQuantStorageGivesTheSameWeight) {
  QuantMachine machine;
  std::vector<float> expected;
  for (const DType storage : {DType::u8, DType::i8, DType::bf16, DType::f16, DType::f32, DType::f64}) {
    C c = plain_checkpoint();
    c.reshape("m.weight", storage, {128 / static_cast<std::int64_t>(size_of(storage)), 1});
    const test::TempDir dir;
    c.write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    const std::vector<float> got = test::decoded(store.linear("m", machine.exec).weight, machine.exec);
    if (expected.empty()) expected = got;
    EXPECT_EQ(got, expected) << name_of(storage);
    test::expect_round_trip(store, &bnb4::store, machine.exec);
  }
}

// A file that Transformers saved after a forward pass on a CPU with AVX512-BF16: absmax lies transposed, in bf16.
TEST(Bnb4, RepairsTransposedAbsmax) {
  QuantMachine machine;
  C c = plain_checkpoint();
  const Tensor good = c.tensors["m.weight.absmax"];
  Tensor broken({2, 4}, DType::bf16);
  for (std::int64_t row = 0; row < 4; ++row) {
    for (std::int64_t b = 0; b < 2; ++b)
      store_from_f32(DType::bf16, broken.data(), b * 4 + row, good.view().at(row * 2 + b));
  }
  std::vector<float> values[2];
  for (const bool repaired : {false, true}) {
    if (repaired) c.tensors["m.weight.absmax"] = broken;
    const test::TempDir dir;
    c.write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    const LinearWeights linear = store.linear("m", machine.exec);
    values[repaired ? 1 : 0] = test::decoded(linear.weight, machine.exec);
    EXPECT_EQ(store.reader()->describe("m").find("repaired") != std::string::npos, repaired);
    const quant::StoredTensors stored = bnb4::store("m", linear);
    EXPECT_EQ(stored[1].name, "m.weight.absmax");
    EXPECT_TRUE(test::same_tensor(stored[1].view, good.view())) << "written as it should have been";
  }
  EXPECT_EQ(values[0], values[1]);
}

// The other form of that damage: nested scales computed in bf16.
TEST(Bnb4, NestedScalesFollowTheirDtype) {
  QuantMachine machine;
  C c = nested_checkpoint();
  c.tensors["m.weight.nested_absmax"].as<float>()[0] = 0.37F;
  c.tensors["m.weight.nested_quant_map"].as<float>()[0] = 0.731F;
  c.set_text(kState,
             R"({"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": [4, 64], "nested_blocksize": 256, )"
             R"("nested_dtype": "bfloat16", "nested_offset": 0.053466796875})");
  const test::TempDir dir;
  c.write(dir / "model");
  const WeightStore store(Checkpoint::open((dir / "model").string()));
  const std::vector<float> got = test::decoded(store.linear("m", machine.exec).weight, machine.exec);
  const float scale = round_to(DType::bf16, round_to(DType::bf16, 0.731F * 0.37F) + 0.053466796875F);
  const auto code = static_cast<unsigned>(c.tensors["m.weight"].data()[1]) >> 4;
  EXPECT_EQ(got[2], lut4::kNf4[code] * scale);
  test::expect_round_trip(store, &bnb4::store, machine.exec);
}

}  // namespace
}  // namespace nibble::bnb4
