// Rewriting checkpoints of the real libraries: the same bytes, other variants, floats.
#include "quant/convert_checkpoint.h"

#include <gtest/gtest.h>

#include "quant/common/module_tensors.h"
#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::EditedCheckpoint;
using test::QuantMachine;

ConvertReport convert(const fs::path& from, const fs::path& out, const std::string& to) {
  QuantMachine m;
  ConvertOptions options;
  options.out = out;
  options.to = to;
  return convert_checkpoint(Checkpoint::open(from.string()), options, m.exec);
}

/// The message with which it fails.
std::string refusal(const fs::path& from, const fs::path& out, const std::string& to) {
  try {
    convert(from, out, to);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    if (out != from) {
      EXPECT_FALSE(fs::exists(out / "model.safetensors"));
    }
    return error.what();
  }
  return "";
}

/// Every tensor of `a` is in `b` with the same bytes.
void expect_same_tensors(const fs::path& a, const fs::path& b) {
  const auto first = Checkpoint::open(a.string()), second = Checkpoint::open(b.string());
  EXPECT_EQ(first->tensors().size(), second->tensors().size());
  for (const TensorEntry& entry : first->tensors()) {
    const TensorEntry* other = second->find(entry.name);
    ASSERT_NE(other, nullptr) << entry.name;
    EXPECT_TRUE(test::same_tensor(entry.view, other->view)) << entry.name;
  }
}

/// AutoAWQ's packing vectors of one variant as a checkpoint with module "a", [32, 256].
void write_awq(const fs::path& folder, const std::string& name, const char* version, std::int64_t group) {
  const auto source = Checkpoint::open(test::data("awq/pack_autoawq.safetensors").string());
  EditedCheckpoint c;
  for (const char* part : {"qweight", "qzeros", "scales"})
    c.tensors[cat("a.", part)] = Tensor(source->at(cat(name, ".", part)));
  c.config = Json::Object{
      {"quantization_config",
       Json::Object{
           {"quant_method", "awq"}, {"bits", 4}, {"group_size", group}, {"version", version}, {"zero_point", true}}}};
  c.write(folder);
}

TEST(Convert, SameFormatGivesTheSameBytes) {
  const test::TempDir dir;
  for (const char* model : {"gptq/ag_b3_g64_sym_desc", "bnb/ckpt/bnb_nf4_bf16"}) {
    const fs::path out = dir / fs::path(model).filename().string();
    const ConvertReport report = convert(test::data(model), out, "same");
    EXPECT_EQ(report.modules, 14) << model;
    EXPECT_EQ(report.same_tensors, report.tensors) << model;
    EXPECT_EQ(report.changed, 0) << model;
    expect_same_tensors(test::data(model), out);
    EXPECT_EQ(Json::read(out / "config.json"), Json::read(test::data(model) / "config.json")) << model;
  }
}

TEST(Convert, GptqFromOneVersionToTheOtherAndBack) {
  const test::TempDir dir;
  const fs::path source = test::data("gptq/ag_b3_g64_sym_desc");
  const ConvertReport report = convert(source, dir / "v2", "gptq_v2");
  EXPECT_EQ(report.changed, 0);
  EXPECT_EQ(report.tensors - report.same_tensors, 14);  // qzeros
  for (const char* file : {"config.json", "quantize_config.json"}) {
    Json config = Json::read(dir / "v2" / file);
    if (config.get("quantization_config") != nullptr) config = Json(*config.get("quantization_config"));
    EXPECT_EQ(config.find("checkpoint_format")->string(""), "gptq_v2") << file;
  }
  const WeightStore v2(Checkpoint::open((dir / "v2").string()));
  EXPECT_NE(v2.reader()->describe("model.layers.0.mlp.up_proj").find("zero points v2"), std::string::npos);
  convert(dir / "v2", dir / "v1", "gptq");
  expect_same_tensors(source, dir / "v1");
}

TEST(Convert, AwqVariantsAreThoseOfTheLibrary) {
  const test::TempDir dir;
  for (const std::int64_t group : {32, 64, 128}) {
    const std::string g = cat("_g", group);
    write_awq(dir / ("gemm" + g), "gemm" + g, "gemm", group);
    const fs::path gemm = dir / ("gemm" + g);
    EXPECT_EQ(convert(gemm, dir / ("gemv" + g), "gemv").changed, 0);
    EXPECT_EQ(convert(dir / ("gemv" + g), dir / ("back" + g), "gemm").changed, 0);
    expect_same_tensors(gemm, dir / ("back" + g));
    const ConvertReport fast = convert(gemm, dir / ("fast" + g), "gemv_fast");
    EXPECT_LT(fast.largest_change, 0.02);
    convert(dir / ("fast" + g), dir / ("llm" + g), "llm-awq");
    const WeightStore llm(Checkpoint::open((dir / ("llm" + g)).string()));
    EXPECT_EQ(llm.reader()->describe("a").rfind("llm-awq int4", 0), 0U) << llm.reader()->describe("a");
    convert(dir / ("llm" + g), dir / ("gemm2" + g), "gemm");
    expect_same_tensors(gemm, dir / ("gemm2" + g));
  }
}

TEST(Convert, FloatsAreTheDecodedValuesRounded) {
  const test::TempDir dir;
  const fs::path source = test::data("gptq/ag_b3_g64_sym_desc");
  QuantMachine m;
  const WeightStore quantized(Checkpoint::open(source.string()));
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const fs::path out = dir / std::string(name_of(dtype));
    const ConvertReport report = convert(source, out, std::string(name_of(dtype)));
    EXPECT_EQ(report.changed == 0, dtype == DType::f32);
    const WeightStore plain(Checkpoint::open(out.string()));
    EXPECT_EQ(plain.scheme(), nullptr);
    EXPECT_FALSE(fs::exists(out / "quantize_config.json"));
    EXPECT_EQ(plain.checkpoint().config().get("quantization_config"), nullptr);
    EXPECT_EQ(plain.checkpoint().config().get("torch_dtype")->string(""), torch_name(dtype));
    for (const TensorEntry& entry : plain.checkpoint().tensors()) EXPECT_EQ(entry.view.dtype(), dtype) << entry.name;
    for (const std::string& module : quantized.reader()->modules()) {
      const std::vector<float> values = test::decoded(quantized.linear(module, m.exec).weight, m.exec);
      const View& weight = plain.at(module + ".weight");
      ASSERT_EQ(static_cast<std::size_t>(weight.count()), values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(weight.at(static_cast<std::int64_t>(i)), round_to(dtype, values[i])) << module;
      }
      EXPECT_EQ(plain.find(module + ".bias"), nullptr);  // the library's zeros
    }
  }
}

TEST(Convert, RefusesWhatTheFormatCannotHold) {
  const test::TempDir dir;
  const fs::path gptq = test::data("gptq/ag_b3_g64_sym_desc");
  EXPECT_TRUE(test::says(refusal(gptq, dir / "a", "gemv"), "this checkpoint (gptq) can become same, f32"));
  EXPECT_TRUE(test::says(refusal(gptq, dir / "a", "bf17"), "--to bf17"));
  write_awq(dir / "gemm", "gemm_g-1", "gemm", -1);
  fs::create_directory(dir / "full");
  test::write_text(dir / "full" / "x", "");
  EXPECT_TRUE(test::says(refusal(dir / "gemm", dir / "full", "gemv"), "is not empty"));
  EXPECT_TRUE(test::says(refusal(dir / "gemm", dir / "gemm", "gemm"), "source itself"));
  EditedCheckpoint scaled(*Checkpoint::open((dir / "gemm").string()));
  scaled.tensors["act.scales"] = Tensor({32}, DType::f16);
  scaled.write(dir / "scaled");
  EXPECT_TRUE(test::says(refusal(dir / "scaled", dir / "a", "f32"), "tensor act.scales: scales of an activation"));
  EXPECT_EQ(convert(dir / "scaled", dir / "same", "same").changed, 0);
}

}  // namespace
}  // namespace nibble
