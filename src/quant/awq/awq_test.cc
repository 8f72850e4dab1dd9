// AWQ files of AutoAWQ and GPTQModel: codes, values and bytes of every variant.
#include "quant/awq/awq.h"

#include <gtest/gtest.h>

#include "checkpoint/writer.h"
#include "quant/awq/packing.h"
#include "support/golden_checkpoint.h"
#include "support/test_support.h"

namespace nibble::awq {
namespace {

namespace fs = std::filesystem;
using test::QuantMachine;

/// A folder with tensors of tests/data under a config.
class CaseFolder {
 public:
  CaseFolder(const char* version, std::int64_t group, const char* tensors = "awq/pack_autoawq.safetensors") {
    const Json::Object config{{"quant_method", "awq"}, {"bits", 4},          {"group_size", group},
                              {"version", version},    {"zero_point", true}, {"modules_to_not_convert", nullptr}};
    test::write_text(dir_ / "config.json", Json(Json::Object{{"quantization_config", config}}).dump());
    fs::create_symlink(test::data(tensors), dir_ / "model.safetensors");
  }
  WeightStore open() const { return WeightStore(Checkpoint::open(dir_.path().string())); }

 private:
  test::TempDir dir_;
};

struct Case {
  const char *name, *version;
  std::int64_t group;
};
constexpr Case kCases[] = {{"gemm_g-1", "gemm", -1},           {"gemm_g32", "GEMM", 32},
                           {"gemm_g64", "exllama", 64},        {"gemm_g128", "gemm", 128},
                           {"gemv_g32", "gemv", 32},           {"gemv_g64", "GEMV", 64},
                           {"gemv_g128", "gemv", 128},         {"gemv_fast_g32", "gemv_fast", 32},
                           {"gemv_fast_g64", "gemv_fast", 64}, {"gemv_fast_g128", "gemv_fast", 128}};

/// The value of a code by the format's own formula: s * (q - z), or q * s + stored zero for gemv_fast.
float expected_value(const WeightStore& weights, const Case& c, const QTensor& w, std::int64_t n, std::int64_t k) {
  const std::string name = c.name;
  const std::int64_t groups = w.cols / w.group, g = k / w.group;
  const float code = weights.at(name + ".codes").at(n * w.cols + k),
              zero = weights.at(name + ".zeros").at(n * groups + g);
  const View& scales = weights.at(name + ".scales");
  if (name.rfind("gemv_fast", 0) == 0)
    return code * scales.at(g * w.rows + n) + weights.at(name + ".qzeros").at(g * w.rows + n);
  const float scale = name.rfind("gemv", 0) == 0 ? scales.at(n * scales.dim(1) + g) : scales.at(g * w.rows + n);
  return scale * (code - zero);
}

TEST(Awq, PackingVectorsOfAutoAwq) {
  QuantMachine m;
  for (const Case& c : kCases) {
    const CaseFolder folder(c.version, c.group);
    const WeightStore weights = folder.open();
    const LinearWeights linear = weights.linear(c.name, m.exec, {32, 256});
    const QTensor& w = linear.weight;
    EXPECT_EQ(w.group, c.group == -1 ? 256 : c.group);
    for (const Target target : {Target::ref, Target::cpu}) {
      const std::vector<float> values = test::values_of(w, target, m.exec);
      for (std::int64_t n = 0; n < w.rows; ++n) {
        for (std::int64_t k = 0; k < w.cols; ++k) {
          ASSERT_EQ(values[static_cast<std::size_t>(n * w.cols + k)], expected_value(weights, c, w, n, k)) << c.name;
        }
      }
    }
    for (const StoredTensor& tensor : store(c.name, linear, m.exec)) {
      const auto mine = tensor.tensor.view().bytes(), theirs = weights.at(tensor.name).bytes();
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end())) << tensor.name;
    }
  }
}

TEST(Awq, CheckpointsOfBothLibraries) {
  NIBBLE_NEED_SHARED(root, "fixtures/gptq_awq/ckpt");
  for (const char* name : {"aq_gemm_g128", "aq_gemm_g64", "aq_gemv_g64", "gm_awq_gemm_g128"}) {
    EXPECT_EQ(test::expect_golden_checkpoint(root / name, root / name / "model.safetensors", "awq"), 14U) << name;
  }
}

/// llm-awq's names for the tensors of the gemv_fast vectors, without any config.
TEST(Awq, LlmAwqTensorsSayTheirGroupSize) {
  QuantMachine m;
  const auto source = Checkpoint::open(test::data("awq/pack_autoawq.safetensors").string());
  for (const Case& c : kCases) {
    if (std::string(c.version) != "gemv_fast") continue;
    test::TempDir dir;
    const std::string name = c.name;
    std::vector<std::pair<std::string, std::string>> parts{
        {"a.qweight", ".qweight"}, {"a.scaled_zeros", ".qzeros"}, {"a.scales", ".scales"}};
    std::vector<TensorPlan> plan;
    for (const auto& [to, from] : parts)
      plan.push_back({to, source->at(name + from).dtype(), source->at(name + from).shape()});
    CheckpointWriter writer(dir.path(), plan);
    for (const auto& [to, from] : parts) writer.write(to, source->at(name + from).bytes());
    writer.commit();
    const WeightStore weights(Checkpoint::open(dir.path().string()));
    ASSERT_NE(weights.scheme(), nullptr);
    EXPECT_EQ(weights.scheme()->name, "awq");
    const LinearWeights linear = weights.linear("a", m.exec);
    EXPECT_EQ(linear.weight.group, c.group);
    EXPECT_EQ(weights.reader()->describe("a"),
              cat("llm-awq int4, group_size ", c.group, ", zero points stored scaled, as -scale * z"));
    test::expect_stored_as_loaded(weights, "a", linear, m.exec);
    const CaseFolder twin(c.version, c.group);
    EXPECT_EQ(test::values_of(linear.weight, Target::ref, m.exec),
              test::values_of(twin.open().linear(name, m.exec).weight, Target::ref, m.exec));
  }
}

TEST(Awq, PaddingThatIsNotZeroSurvives) {
  QuantMachine m;
  const auto source = Checkpoint::open(test::data("awq/pack_autoawq.safetensors").string());
  for (const char* name : {"gemv_g64", "gemv_fast_g64"}) {
    test::TempDir dir;
    std::vector<TensorPlan> plan;
    std::vector<Tensor> tensors;
    for (const char* part : {"qweight", "qzeros", "scales"}) {
      const View& view = source->at(cat(name, ".", part));
      plan.push_back({cat("a.", part), view.dtype(), view.shape()});
      tensors.emplace_back(view);
    }
    for (std::size_t i = 1; i < 3; ++i) tensors[i].bytes().back() = std::byte{0x35};
    CheckpointWriter writer(dir.path(), plan);
    for (std::size_t i = 0; i < 3; ++i) writer.write(plan[i].name, tensors[i].bytes());
    const Json::Object config{{"bits", 4},
                              {"q_group_size", 64},
                              {"zero_point", true},
                              {"version", std::string(name).substr(0, std::string(name).size() - 4)}};
    writer.add_file("quant_config.json", Json(config).dump());
    writer.commit();
    const WeightStore weights(Checkpoint::open(dir.path().string()));
    test::expect_stored_as_loaded(weights, "a", weights.linear("a", m.exec), m.exec);
  }
}

}  // namespace
}  // namespace nibble::awq
