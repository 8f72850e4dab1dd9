// What bitsandbytes saved in 4 bits is read with its own dequantized bits and written back byte for byte.
#include "quant/bnb4/bnb4.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::bnb4 {
namespace {

namespace fs = std::filesystem;
using test::data;
using test::QuantMachine;

void check_variant(const fs::path& root, const Json& variant) {
  const std::string name = variant.find("name")->string("name");
  const WeightStore store(Checkpoint::open((root / variant.find("ckpt")->string("ckpt")).string()));
  ASSERT_NE(store.scheme(), nullptr) << name;
  EXPECT_EQ(store.scheme()->name, "bnb4");
  const Json::Object& digests = variant.find("dequant_sha256_fp32")->object("digests");
  EXPECT_EQ(store.reader()->modules().size(), digests.size());
  for (const Target target : {Target::ref, Target::cpu}) {
    QuantMachine machine(target);
    for (const auto& [module, digest] : digests) {
      EXPECT_EQ(test::digest_of(store.linear(module, machine.exec).weight, machine.exec), digest.string("digest"))
          << name << " " << module;
    }
    test::expect_round_trip(store, &bnb4::store, machine.exec);
  }
}

int check_variants(const fs::path& root) {
  int checked = 0;
  const Json index = Json::read(data("bnb/index.json"));
  for (const Json& variant : index.find("variants")->array("variants")) {
    if (variant.find("family")->string("family") != "bnb4") continue;
    if (!fs::exists(root / variant.find("ckpt")->string("ckpt") / "model.safetensors")) continue;
    check_variant(root, variant);
    ++checked;
  }
  return checked;
}

TEST(Bnb4, WeightsHaveTheLibrarysBitsAndComeBack) { EXPECT_EQ(check_variants(data("bnb")), 2); }

TEST(Bnb4, AllVariantsOfTheLibrary) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  EXPECT_EQ(check_variants(root), 4);
}

/// One tensor of vectors/bnb4.safetensors as a checkpoint of one module.
test::EditedCheckpoint vector_checkpoint(const Checkpoint& vectors, const std::string& key, const Json& facts) {
  test::EditedCheckpoint out;
  const Json::Array& dims = facts.find("shape")->array("shape");
  Shape shape;
  for (const Json& dim : dims) shape.push_back(dim.integer("shape"));
  if (shape.size() == 1) shape.insert(shape.begin(), 1);
  QuantState state{.quant_type = facts.find("quant_type")->string("quant_type"),
                   .block = facts.find("blocksize")->integer("blocksize"),
                   .dtype = dtype_from_name(facts.find("dtype")->string("dtype")).value(),
                   .rows = shape[0],
                   .cols = shape[1],
                   .nested = std::nullopt};
  out.tensors["m.weight"] = Tensor(vectors.at(key + ".packed"));
  out.tensors["m.weight.absmax"] = Tensor(vectors.at(key + ".absmax"));
  Tensor map({16}, DType::f32);
  std::copy_n(table_of(state.quant_type)->begin(), 16, map.as<float>().begin());
  out.tensors["m.weight.quant_map"] = map;
  if (facts.find("nested")->boolean("nested")) {
    state.nested = lut4::Nested{.offset = vectors.at(key + ".offset").at(0), .block = 256, .dtype = DType::f32};
    out.tensors["m.weight.nested_absmax"] = Tensor(vectors.at(key + ".nested_absmax"));
    out.tensors["m.weight.nested_quant_map"] = Tensor(vectors.at(key + ".nested_quant_map"));
  }
  out.set_text("m.weight.quant_state.bitsandbytes__" + state.quant_type, state_text(state));
  return out;
}

/// Elements in which the library's own CPU kernels leave the format's definition: the sign of FP4's second zero, bf16
/// subnormals that AVX512-BF16 flushes to zero.
bool known_difference(float got, float library, DType dtype) {
  if (got == 0 && library == 0) return true;
  return dtype == DType::bf16 && library == 0 && std::abs(got) < 0x1p-126F;
}

TEST(Bnb4, VectorsWithOddSizesSpecialValuesAndNesting) {
  const auto vectors = Checkpoint::open(data("bnb/vectors/bnb4.safetensors").string());
  const Json index = Json::read(data("bnb/index.json"));
  int checked = 0;
  for (const auto& [key, facts] : index.find("vectors")->object("vectors")) {
    // In these two the library's AVX-512 kernel reads another block's scale, which is a bug of it.
    if (facts.find("kind")->string("kind") != "bnb4" || key.find("m3x80") != std::string::npos ||
        key.find("m48x16") != std::string::npos)
      continue;
    const test::TempDir dir;
    vector_checkpoint(*vectors, key, facts).write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    const View& expected = vectors->at(key + ".dequant");
    for (const Target target : {Target::ref, Target::cpu}) {
      QuantMachine machine(target);
      const std::vector<float> got = test::decoded(store.linear("m", machine.exec).weight, machine.exec);
      ASSERT_EQ(static_cast<std::int64_t>(got.size()), expected.count()) << key;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const float library = expected.at(static_cast<std::int64_t>(i));
        const bool same = std::bit_cast<std::uint32_t>(got[i]) == std::bit_cast<std::uint32_t>(library) ||
                          (std::isnan(got[i]) && std::isnan(library)) ||
                          known_difference(got[i], library, expected.dtype());
        ASSERT_TRUE(same) << key << " element " << i << ": " << got[i] << " for " << library;
      }
    }
    QuantMachine machine;
    test::expect_round_trip(store, &bnb4::store, machine.exec);
    ++checked;
  }
  EXPECT_GT(checked, 60);
}

}  // namespace
}  // namespace nibble::bnb4
