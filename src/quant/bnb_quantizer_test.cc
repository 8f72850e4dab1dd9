// Quantizing with NF4, FP4 and LLM.int8 gives the bytes and the config that the real libraries wrote.
#include "quant/bnb_quantizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "quant/bnb4/quantizer.h"
#include "quant/bnb8/quantizer.h"
#include "quant/quantize_checkpoint.h"
#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::data;

bnb::Config four_bit(const std::string& type, bool nested = false) {
  bnb::Config config;
  config.load_in_4bit = true;
  config.quant_type = type;
  config.double_quant = nested;
  return config;
}

struct Result {
  QuantizationPlan plan;
  QuantizationError error;
};

Result quantize(const Checkpoint& source, const fs::path& out, const bnb::Config& config, int threads = 2,
                std::int64_t block = 64) {
  ThreadPool pool(threads);
  const auto quantizer = make_bnb_quantizer(config, block);
  Result result{plan_quantization(source, *quantizer, selection_of(config), threads), {}};
  QuantizeOptions options;
  options.out = out;
  result.error = quantize_checkpoint(source, result.plan, *quantizer, options, pool);
  return result;
}

/// Every tensor of `library` is in `ours` with the same bytes, and nothing else is; so is the quantization_config.
void expect_same_checkpoint(const fs::path& ours, const fs::path& library) {
  const auto got = Checkpoint::open(ours.string()), expected = Checkpoint::open(library.string());
  EXPECT_EQ(got->tensors().size(), expected->tensors().size());
  for (const TensorEntry& entry : expected->tensors()) {
    const TensorEntry* found = got->find(entry.name);
    ASSERT_NE(found, nullptr) << entry.name;
    EXPECT_TRUE(test::same_tensor(found->view, entry.view)) << entry.name;
  }
  const Json *a = got->config().find("quantization_config"), *b = expected->config().find("quantization_config");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_EQ(a->dump(2), b->dump(2));
}

TEST(BnbQuantizer, WritesTheLibrarysCheckpoint) {
  const auto source = Checkpoint::open(data("quanto/tiny-llama-bf16").string());
  const test::TempDir temp;
  bnb::Config config = four_bit("nf4");
  config.compute_dtype = DType::bf16;
  const Result one = quantize(*source, temp / "one", config, 1), two = quantize(*source, temp / "two", config, 2);
  expect_same_checkpoint(temp / "one", data("bnb/ckpt/bnb_nf4_bf16"));
  EXPECT_EQ(test::read_text(temp / "one/model.safetensors"), test::read_text(temp / "two/model.safetensors"));
  EXPECT_EQ(one.plan.modules.size(), 14U);
  EXPECT_NEAR(one.plan.bits_per_weight(), 4.5, 0.05);
  EXPECT_NEAR(one.error.relative(), 0.09, 0.02);
}

TEST(BnbQuantizer, WritesEveryCheckpointOfTheLibrary) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  const test::TempDir temp;
  struct Case {
    const char *base, *name;
    bnb::Config config;
  };
  bnb::Config fp4 = four_bit("fp4"), nested = four_bit("nf4", true), int8;
  fp4.compute_dtype = DType::bf16;
  int8.load_in_8bit = true;
  for (const Case& c :
       {Case{"tiny-llama-bf16", "bnb_fp4_bf16", fp4}, Case{"tiny-llama-fp32", "bnb_nf4_dq_fp32", nested},
        Case{"tiny-llama-bf16", "bnb_int8_t6_bf16", int8}}) {
    quantize(*Checkpoint::open((root / c.base).string()), temp / c.name, c.config);
    expect_same_checkpoint(temp / c.name, root / "ckpt" / c.name);
  }
}

/// Vectors whose input is finite, of every length, block and type.
TEST(BnbQuantizer, FourBitVectors) {
  const auto vectors = Checkpoint::open(data("bnb/vectors/bnb4.safetensors").string());
  const Json index = Json::read(data("bnb/index.json"));
  ThreadPool pool(2);
  int checked = 0, refused = 0;
  for (const auto& [key, facts] : index.find("vectors")->object("vectors")) {
    if (facts.find("kind")->string("kind") != "bnb4") continue;
    const View& input = vectors->at(key + ".input");
    const bnb4::WeightSpec spec{.quant_type = facts.find("quant_type")->string("quant_type"),
                                .block = facts.find("blocksize")->integer("blocksize"),
                                .double_quant = facts.find("nested")->boolean("nested")};
    const std::vector<float> values = input.to_f32();
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      EXPECT_THROW(bnb4::quantize_weight(spec, input, key, pool), Error);
      ++refused;
      continue;
    }
    const bnb4::StoredWeight got = bnb4::quantize_weight(spec, input, key, pool);
    EXPECT_TRUE(test::same_tensor(got.codes, vectors->at(key + ".packed"))) << key;
    EXPECT_TRUE(test::same_tensor(got.absmax, vectors->at(key + ".absmax"))) << key;
    if (spec.double_quant) {
      EXPECT_EQ(got.nested->offset, vectors->at(key + ".offset").at(0)) << key;
      EXPECT_TRUE(test::same_tensor(got.nested->absmax, vectors->at(key + ".nested_absmax"))) << key;
      const std::vector<float> map = vectors->at(key + ".nested_quant_map").to_f32();
      const std::array<float, 256> ours = bnb4::dynamic_map();
      EXPECT_TRUE(std::equal(map.begin(), map.end(), ours.begin())) << key;
    }
    ++checked;
  }
  EXPECT_GT(checked, 55);
  EXPECT_GT(refused, 0);
}

TEST(BnbQuantizer, Int8Vectors) {
  const auto vectors = Checkpoint::open(data("bnb/vectors/bnb_int8.safetensors").string());
  ThreadPool pool(2);
  for (const std::string dtype : {"f32", "bf16", "f16"}) {
    const View &input = vectors->at("w." + dtype + ".input"), &codes = vectors->at("w." + dtype + ".CB"),
               &absmax = vectors->at("w." + dtype + ".SCB");
    EXPECT_THROW(bnb8::quantize_weight(input, dtype, pool), Error) << "some rows hold NaN and infinity";
    int checked = 0;
    for (std::int64_t r = 0; r < input.dim(0); ++r) {
      if (!std::isfinite(absmax.at(r))) continue;
      const bnb8::StoredWeight got = bnb8::quantize_weight(input.rows(r, r + 1), dtype, pool);
      EXPECT_EQ(got.absmax.view().at(0), absmax.at(r)) << dtype << " row " << r;
      EXPECT_TRUE(test::same_tensor(got.codes, codes.rows(r, r + 1))) << dtype << " row " << r;
      ++checked;
    }
    EXPECT_GT(checked, 2) << dtype;
  }
}

test::EditedCheckpoint small_model() {
  test::EditedCheckpoint model;
  for (const char* name : {"layers.0.fc.weight", "layers.1.fc.weight", "lm_head.weight"}) {
    Tensor weight({3, 50}, DType::bf16);
    for (std::int64_t i = 0; i < 150; ++i) {
      store_from_f32(DType::bf16, weight.data(), i, std::sin(static_cast<float>(i)) * 0.1F);
    }
    model.tensors[name] = weight;
  }
  model.tensors["conv.weight"] = Tensor({2, 2, 3, 3}, DType::f32);
  model.config = Json::Object{{"architectures", Json::Array{"X"}}, {"vocab_size", 3}};
  return model;
}

const Json& skip_list(const Checkpoint& checkpoint) {
  return *checkpoint.config().find("quantization_config")->find("llm_int8_skip_modules");
}

TEST(BnbQuantizer, SearchedScalesAreBetterForEveryBlock) {
  std::vector<float> values;
  std::uint32_t state = 3;
  for (int i = 0; i < 64 * 40 + 17; ++i) {  // the last block is short
    float sum = 0;
    for (int j = 0; j < 6; ++j) {
      state = state * 1664525U + 1013904223U;
      sum += static_cast<float>(state >> 8) / 8388608.0F - 1;
    }
    values.push_back(i / 64 == 5 ? 0 : sum * (i % 64 == 0 ? 4.0F : 1.0F));
  }
  const View weight(values.data(), {static_cast<std::int64_t>(values.size())}, DType::f32);
  for (const char* type : {"nf4", "fp4"}) {
    const auto errors = [&](bool search, int threads) {
      ThreadPool pool(threads);
      const bnb4::StoredWeight stored =
          bnb4::quantize_weight({.quant_type = type, .block = 64, .search_absmax = search}, weight, "w", pool);
      const auto* codes = reinterpret_cast<const std::uint8_t*>(stored.codes.data());
      std::vector<double> out(41);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const unsigned code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
        const float value = (*bnb4::table_of(type))[code] * stored.absmax.view().at(static_cast<std::int64_t>(i / 64));
        out[i / 64] += static_cast<double>((values[i] - value) * (values[i] - value));
      }
      return out;
    };
    const std::vector<double> library = errors(false, 1), searched = errors(true, 1);
    EXPECT_EQ(searched, errors(true, 2));
    double before = 0, after = 0;
    for (std::size_t b = 0; b < library.size(); ++b) {
      EXPECT_LE(searched[b], library[b]) << type << " block " << b;
      before += library[b];
      after += searched[b];
    }
    EXPECT_LT(after, 0.9 * before) << type;
  }
}

TEST(BnbQuantizer, SkipListsAreTransformers) {
  const test::TempDir temp;
  small_model().write(temp / "in");
  const auto source = Checkpoint::open((temp / "in").string());
  bnb::Config config = four_bit("nf4", true);
  const Result plain = quantize(*source, temp / "plain", config, 1, 32);
  EXPECT_EQ(plain.plan.modules, (std::vector<std::string>{"layers.0.fc", "layers.1.fc"}));
  const auto written = Checkpoint::open((temp / "plain").string());
  EXPECT_TRUE(skip_list(*written).is_null()) << "the default rule";
  EXPECT_EQ(written->config().object("config").at(1).first, "quantization_config") << "in alphabetical order";

  config.skip = quant::NamePatterns({"layers.1"}, "list");
  const Result listed = quantize(*source, temp / "listed", config);
  EXPECT_EQ(listed.plan.modules, (std::vector<std::string>{"layers.0.fc", "lm_head"})) << "a list replaces the default";
  EXPECT_EQ(skip_list(*Checkpoint::open((temp / "listed").string())).dump(), "[\"layers.1\"]");

  config.skip.reset();
  ThreadPool pool(1);
  const auto quantizer = make_bnb_quantizer(config);
  ModuleSelection selection = selection_of(config);
  selection.exclude = {"*.1.*"};
  const QuantizationPlan excluded = plan_quantization(*source, *quantizer, selection, 1);
  EXPECT_EQ(excluded.quantization_config->find("llm_int8_skip_modules")->dump(), "[\"layers.1.fc\", \"lm_head\"]");
}

TEST(BnbQuantizer, RefusesWhatTheFormatsDoNotHave) {
  bnb::Config both = four_bit("nf4");
  both.load_in_8bit = true;
  EXPECT_THROW(make_bnb_quantizer(both), Error);
  EXPECT_THROW(make_bnb_quantizer(four_bit("nf4"), 48), Error);
  EXPECT_THROW(make_bnb_quantizer(four_bit("nf5")), Error);
  bnb::Config wide = four_bit("nf4");
  wide.quant_storage = DType::bf16;
  EXPECT_THROW(make_bnb_quantizer(wide), Error);
  Tensor large({1, 2}, DType::f32);
  large.as<float>()[1] = 70000;
  ThreadPool pool(1);
  EXPECT_THROW(bnb8::quantize_weight(large, "w", pool), Error) << "f16 ends before it";
  EXPECT_NO_THROW(bnb4::quantize_weight({}, large, "w", pool));
}

/// A wrong byte in the result is found when it is read back.
TEST(BnbQuantizer, VerifyNoticesDamage) {
  const test::TempDir temp;
  small_model().write(temp / "in");
  const auto source = Checkpoint::open((temp / "in").string());
  bnb::Config int8;
  int8.load_in_8bit = true;
  ThreadPool pool(1);
  for (const bnb::Config& config : {four_bit("nf4"), four_bit("fp4", true), int8}) {
    quantize(*source, temp / "out", config);
    const auto written = Checkpoint::open((temp / "out").string());
    test::EditedCheckpoint damaged(*written);
    Tensor& codes = damaged.tensors.at("layers.1.fc.weight");
    codes.bytes()[7] ^= std::byte{0x55};
    damaged.write(temp / "damaged");
    const auto quantizer = make_bnb_quantizer(config);
    quantizer->open_result(Checkpoint::open((temp / "damaged").string()));
    EXPECT_NO_THROW(quantizer->verify("layers.0.fc", *source->find("layers.0.fc.weight"), pool));
    EXPECT_THROW(quantizer->verify("layers.1.fc", *source->find("layers.1.fc.weight"), pool), Error);
    fs::remove_all(temp / "out");
    fs::remove_all(temp / "damaged");
  }
}

}  // namespace
}  // namespace nibble
