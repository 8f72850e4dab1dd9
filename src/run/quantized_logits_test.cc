// Logits of bitsandbytes and AQLM checkpoints against those of the libraries that wrote them.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"
#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::LoadedModel;
using test::relative_error;

constexpr double kF32Bound = 1e-4;

std::vector<std::int32_t> ids_of(const Json& list) {
  std::vector<std::int32_t> out;
  for (const Json& id : list.array("sequences")) out.push_back(static_cast<std::int32_t>(id.integer("sequences")));
  return out;
}

/// A variant of tests/data/bnb/index.json: its weights with its config, which some share.
struct Variant {
  Variant(const fs::path& root, const std::string& variant_name) {
    const Json index = Json::read(test::data("bnb/index.json"));
    for (const Json& v : index.find("variants")->array("variants")) {
      if (v.find("name")->string("name") != variant_name) continue;
      fs::copy_file(root / v.find("config")->string("config"), dir / "config.json");
      fs::create_symlink(root / v.find("ckpt")->string("ckpt") / "model.safetensors", dir / "model.safetensors");
      golden = Checkpoint::open((root / v.find("golden")->string("golden")).string());
    }
    for (const Json& ids : index.find("sequences")->array("sequences")) sequences.push_back(ids_of(ids));
  }
  std::vector<float> logits(const std::string& set, std::size_t i) const {
    return golden->at(cat("logits.", set, ".seq", i)).to_f32();
  }
  test::TempDir dir;
  std::shared_ptr<const Checkpoint> golden;
  std::vector<std::vector<std::int32_t>> sequences;
};

/// The library's f32 logits (`exact`) in f32; in bf16, no further from them than the library's own bf16 is.
void check_logits(const Variant& v, const std::string& exact, const std::string& rounded, double bound = kF32Bound) {
  for (const Target target : {Target::ref, Target::cpu}) {
    LoadedModel f32(v.dir.path(), {.target = target, .compute = DType::f32});
    LoadedModel bf16(v.dir.path(), {.target = target, .compute = DType::bf16});
    for (std::size_t i = 0; i < v.sequences.size(); ++i) {
      EXPECT_LT(relative_error(f32.one_shot(v.sequences[i]), v.logits(exact, i)), bound) << "sequence " << i;
      if (rounded.empty()) continue;
      const double theirs = relative_error(v.logits(rounded, i), v.logits(exact, i));
      EXPECT_LT(relative_error(bf16.one_shot(v.sequences[i]), v.logits(exact, i)), 1.5 * theirs) << "sequence " << i;
    }
  }
}

TEST(BnbLogits, Nf4) { check_logits(Variant(test::data("bnb"), "bnb_nf4_bf16"), "portable_fp32act", "portable"); }

TEST(BnbLogits, Fp4) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  check_logits(Variant(root, "bnb_fp4_bf16"), "portable_fp32act", "portable");
}

TEST(BnbLogits, NestedNf4) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  check_logits(Variant(root, "bnb_nf4_dq_fp32"), "portable", "");
}

TEST(BnbLogits, LlmInt8WithOutlierColumns) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  check_logits(Variant(root, "bnb_int8_t6_bf16"), "lib_fp32act", "lib");
}

TEST(BnbLogits, LlmInt8WithoutOutliers) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  check_logits(Variant(root, "bnb_int8_t0_bf16"), "lib_fp32act", "lib");
}

TEST(AqlmLogits, AllModels) {
  NIBBLE_NEED_SHARED(root, "fixtures/aqlm_etc");
  for (const std::string name : {"k1n12g8", "k2n8g8", "k4n8g8", "k4n8g16", "k1n16g8_one"}) {
    const auto golden = Checkpoint::open((root / "expected" / ("aqlm-" + name + ".safetensors")).string());
    const std::vector<float> logits = golden->at("logits_fp32").to_f32();
    const View& ids = golden->at("input_ids");
    for (const Target target : {Target::ref, Target::cpu}) {
      LoadedModel model(root / ("aqlm-" + name), {.target = target, .compute = DType::f32});
      std::vector<float> got;
      for (std::int64_t s = 0; s < ids.dim(0); ++s) {
        std::vector<std::int32_t> sequence;
        for (std::int64_t i = 0; i < ids.dim(1); ++i)
          sequence.push_back(static_cast<std::int32_t>(ids.at(s * ids.dim(1) + i)));
        const std::vector<float> part = model.one_shot(sequence);
        got.insert(got.end(), part.begin(), part.end());
      }
      EXPECT_LT(relative_error(got, logits), kF32Bound) << name;
    }
  }
}

// Families with linears of a shape of their own (tools/make_quantized_goldens.py): q, k and v of one module, head by
// head, which stays one quantized matrix; experts.
class QuantizedFamily : public testing::TestWithParam<const char*> {};

TEST_P(QuantizedFamily, DequantizedWeightsGiveTheLibrarysLogits) {
  const fs::path folder = test::data("models_quantized") / GetParam();
  const test::Goldens golden(folder / "golden.safetensors");
  for (const Target target : {Target::ref, Target::cpu}) {
    LoadedModel model(folder, {.target = target, .compute = DType::f32});
    for (int i = 0; i < 2; ++i) {
      EXPECT_LT(relative_error(model.one_shot(golden.ids(i)), golden.logits("f32", i)), kF32Bound) << "sequence " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, QuantizedFamily,
                         testing::Values("bloom-bnb-nf4", "neox-quanto-int4", "mixtral-v4-bnb-nf4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
