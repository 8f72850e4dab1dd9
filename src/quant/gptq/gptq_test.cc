// GPTQ files of AutoGPTQ and GPTQModel: codes, values and bytes.
#include "quant/gptq/gptq.h"

#include <gtest/gtest.h>

#include "layout/affine/affine.h"
#include "support/golden_checkpoint.h"
#include "support/test_support.h"

namespace nibble::gptq {
namespace {

namespace fs = std::filesystem;
using test::QuantMachine;

/// A case of the packing vectors, from its name: "b4_g32_asym_desc".
struct Case {
  std::string name;
  std::int64_t bits, group;
  bool sym, desc_act;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const Json index = Json::read(test::data("gptq/pack_autogptq_v1.json"));
  for (const auto& [name, c] : index.object("cases")) {
    all.push_back({name, c.find("bits")->integer("bits"), c.find("group")->integer("group"),
                   c.find("sym")->boolean("sym"), c.find("desc")->boolean("desc")});
  }
  return all;
}

/// A folder with these tensors under a config for one case.
class CaseFolder {
 public:
  CaseFolder(const Case& c, const char* tensors, const char* format) {
    Json::Object config{
        {"quant_method", "gptq"}, {"bits", c.bits}, {"group_size", c.group}, {"sym", c.sym}, {"desc_act", c.desc_act}};
    if (format != nullptr) config.emplace_back("checkpoint_format", format);
    test::write_text(dir_ / "quantize_config.json", Json(config).dump());
    fs::create_symlink(test::data(tensors), dir_ / "model.safetensors");
  }
  WeightStore open() const { return WeightStore(Checkpoint::open(dir_.path().string())); }

 private:
  test::TempDir dir_;
};

/// Codes [inputs, outputs] of the vectors against those of the weight.
void expect_codes(const QTensor& w, const View& codes, const std::string& name, Exec& exec) {
  const affine::Plain plain = affine::unpack(w, exec);
  ASSERT_EQ(codes.shape(), (Shape{w.cols, w.rows})) << name;
  for (std::int64_t j = 0; j < w.cols; ++j) {
    const std::int64_t k = plain.order.empty() ? j : plain.order[static_cast<std::size_t>(j)];
    for (std::int64_t n = 0; n < w.rows; ++n) {
      ASSERT_EQ(plain.codes[static_cast<std::size_t>(n * w.cols + j)], codes.at(k * w.rows + n)) << name;
    }
  }
}

TEST(Gptq, PackingVectorsOfAutoGptq) {
  QuantMachine m;
  const std::vector<Case> all = cases();
  ASSERT_EQ(all.size(), 48U);
  for (const Case& c : all) {
    const CaseFolder folder(c, "gptq/pack_autogptq_v1.safetensors", nullptr);
    const WeightStore weights = folder.open();
    const LinearWeights linear = weights.linear(c.name, m.exec, {32, 128});
    EXPECT_EQ(linear.weight.bits, c.bits);
    EXPECT_EQ(linear.weight.part[4].empty(), !c.desc_act || c.group == -1) << c.name;
    expect_codes(linear.weight, weights.at(c.name + ".codes"), c.name, m.exec);
    const View& zeros = weights.at(c.name + ".zeros");  // [groups, outputs]
    for (std::int64_t g = 0; g < zeros.dim(0); ++g) {
      for (std::int64_t n = 0; n < 32; ++n) {
        ASSERT_EQ(linear.weight.part[2].at(n * zeros.dim(0) + g), zeros.at(g * 32 + n)) << c.name;
      }
    }
    for (const StoredTensor& tensor : weights.scheme()->store(c.name, linear, m.exec)) {
      const auto mine = tensor.tensor.view().bytes(), theirs = weights.at(tensor.name).bytes();
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end())) << tensor.name;
    }
  }
}

TEST(Gptq, PackingVectorsOfGptqModelAndItsValues) {
  QuantMachine m;
  for (const Case& c : cases()) {
    const CaseFolder folder(c, "gptq/pack_gptqmodel_v2.safetensors", "gptq_v2");
    const WeightStore weights = folder.open();
    const LinearWeights linear = weights.linear(c.name, m.exec, {32, 128});
    EXPECT_NE(weights.reader()->describe(c.name).find("zero points v2"), std::string::npos);
    const View& expected = weights.at(c.name + ".dequant_fp16");
    for (const Target target : {Target::ref, Target::cpu}) {
      const std::vector<float> values = test::values_of(linear.weight, target, m.exec);
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(round_to(DType::f16, values[i]), expected.at(static_cast<std::int64_t>(i))) << c.name << " " << i;
      }
    }
    // The same weight as v1 has the library's converted zero points.
    LinearWeights v1 = linear;
    auto record = std::make_shared<Record>(dynamic_cast<const Record&>(*linear.record));
    record->zeros = Zeros::v1;
    v1.record = record;
    for (const bool older : {false, true}) {
      for (const StoredTensor& tensor : store(c.name, older ? v1 : linear, m.exec)) {
        const bool zeros = tensor.name == c.name + ".qzeros";
        const auto mine = tensor.tensor.view().bytes();
        const auto theirs = weights.at(older && zeros ? c.name + ".qzeros_v1" : tensor.name).bytes();
        EXPECT_TRUE(std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end())) << tensor.name;
      }
    }
  }
}

TEST(Gptq, SymmetricZeroPointsProveTheVersionAgainstTheConfig) {
  const Case sym{"b4_g32_sym_desc", 4, 32, true, true}, asym{"b4_g32_asym_desc", 4, 32, false, true};
  const CaseFolder lying(sym, "gptq/pack_gptqmodel_v2.safetensors", "gptq");
  EXPECT_EQ(
      lying.open().reader()->describe(sym.name),
      "int4, group_size 32, sym, desc_act, inputs reordered by g_idx, zero points v2 (symmetric zero points prove "
      "it, against checkpoint_format in quantize_config.json)");
  const CaseFolder silent(asym, "gptq/pack_autogptq_v1.safetensors", nullptr);
  EXPECT_EQ(silent.open().reader()->describe(asym.name),
            "int4, group_size 32, asym, desc_act, inputs reordered by g_idx, zero points v1 (z - 1 stored; no "
            "checkpoint_format: the format's default)");
}

TEST(Gptq, CheckpointOfAutoGptq) {
  const fs::path folder = test::data("gptq/ag_b3_g64_sym_desc");
  EXPECT_EQ(test::expect_golden_checkpoint(folder, folder, "gptq"), 14U);
}

TEST(Gptq, CheckpointsOfBothLibraries) {
  NIBBLE_NEED_SHARED(root, "fixtures/gptq_awq/ckpt");
  for (const char* name : {"ag_b2_g64_asym", "ag_b3_g64_sym_desc", "ag_b4_g128_sym", "ag_b4_g32_asym_desc",
                           "gm_b3_gm1_sym_v2", "gm_b4_g128_sym_v1", "gm_b4_g32_asym_desc_v2"}) {
    fs::path file = root / name / "model.safetensors";
    if (!fs::exists(file)) file = root / name;
    EXPECT_EQ(test::expect_golden_checkpoint(root / name, file, "gptq"), 14U) << name;
  }
  const fs::path sharded = root / "gm_b8_g64_sym_desc_v1_sharded";
  EXPECT_EQ(test::expect_golden_checkpoint(sharded, sharded, "gptq"), 14U);
}

TEST(Gptq, PublishedConfigsAreUnderstood) {
  NIBBLE_NEED_SHARED(root, "models/quantized-configs");
  int found = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (entry.path().filename().string().rfind("gptq-", 0) != 0) continue;
    test::TempDir dir;  // the configs without their weights
    for (const char* name : {"config.json", "quantize_config.json"}) fs::copy_file(entry.path() / name, dir / name);
    fs::create_symlink(test::data("gptq/pack_autogptq_v1.safetensors"), dir / "model.safetensors");
    const WeightStore weights(Checkpoint::open(dir.path().string()));
    ASSERT_NE(weights.scheme(), nullptr) << entry.path();
    EXPECT_EQ(weights.scheme()->name, "gptq");
    ++found;
  }
  EXPECT_EQ(found, 5);
}

}  // namespace
}  // namespace nibble::gptq
