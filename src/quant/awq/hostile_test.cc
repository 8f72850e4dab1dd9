// Wrong and contradictory AWQ files: one line that names file and tensor or key.
#include <gtest/gtest.h>

#include "quant/awq/awq.h"
#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::awq {
namespace {

using C = test::EditedCheckpoint;
using test::QuantMachine;
using test::says;

/// 64 inputs, 32 outputs, groups of 32.
C good(const char* version) {
  C c;
  c.config.set("hidden_size", 64);
  c.config.set(
      "quantization_config",
      Json::Object{
          {"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"version", version}, {"zero_point", true}});
  const std::string v = version;
  const bool gemm = v == "gemm", gemv = v == "gemv";
  c.tensors["x.m.qweight"] = gemm   ? Tensor({64, 4}, DType::i32)
                             : gemv ? Tensor({32, 8}, DType::i32)
                                    : Tensor({8, 64}, DType::i16);
  c.tensors["x.m.qzeros"] = gemm   ? Tensor({2, 4}, DType::i32)
                            : gemv ? Tensor({32, 4}, DType::i32)
                                   : Tensor({32, 32}, DType::f16);
  c.tensors["x.m.scales"] = gemm ? Tensor({2, 32}, DType::f16) : Tensor({32, 32}, DType::f16);
  return c;
}

template <class F>
std::string refusal(F&& edit, const char* version = "gemm", LinearSize size = {}) {
  C checkpoint = good(version);
  edit(checkpoint);
  const test::TempDir dir;
  checkpoint.write(dir / "model");
  QuantMachine machine;
  return test::refusal(dir / "model", machine.exec, size);
}

std::string with(const char* key, const Json& value) {
  return refusal([&](C& c) {
    Json config = *c.config.find("quantization_config");
    config.set(key, value);
    c.config.set("quantization_config", config);
  });
}

TEST(AwqHostile, TensorsAreRefusedByName) {
  for (const char* version : {"gemm", "gemv", "gemv_fast"}) {
    EXPECT_EQ(refusal([](C&) {}, version, {32, 64}), "") << version;
    EXPECT_TRUE(says(refusal([](C&) {}, version, {64, 64}), "tensor x.m.qweight:"));
    for (const char* name : {"x.m.qweight", "x.m.qzeros", "x.m.scales"}) {
      EXPECT_TRUE(says(refusal([&](C& c) { c.tensors.erase(name); }, version), cat("tensor ", name, " is missing")))
          << name;
      EXPECT_TRUE(says(refusal(
                           [&](C& c) {
                             c.reshape(name, DType::i8, {7, 3});
                           },
                           version),
                       cat("tensor ", name, ":")))
          << name;
      EXPECT_TRUE(says(refusal(
                           [&](C& c) {
                             c.reshape(name, c.tensors.at(name).dtype(), {0, 0});
                           },
                           version),
                       cat("tensor ", name, ":")))
          << name;
    }
  }
  EXPECT_TRUE(says(refusal([](C& c) {
                     c.reshape("x.m.qzeros", DType::i32, {2, 5});
                   }),
                   "tensor x.m.qzeros: found i32 [2, 5], expected i32 [2, 4]"));
  EXPECT_TRUE(says(refusal(
                       [](C& c) {
                         c.reshape("x.m.qweight", DType::i16, {8, 60});
                       },
                       "gemv_fast"),
                   "no multiple of 64"));
  EXPECT_TRUE(says(refusal([](C& c) { c.tensors["x.m.bias"] = Tensor({33}, DType::f16); }), "tensor x.m.bias:"));
  EXPECT_TRUE(says(refusal([](C& c) {
                     c.tensors["x.m.weight"] = Tensor({32, 64}, DType::f16);
                   }),
                   "stored plain and quantized"));
}

TEST(AwqHostile, ConfigsAreRefusedByKey) {
  EXPECT_TRUE(says(with("bits", 3), "bits: 3 bits (AWQ has 4)"));
  EXPECT_TRUE(says(with("group_size", 0), "group_size: 0"));
  EXPECT_TRUE(says(with("group_size", 24), "tensor x.m.qweight: 64 inputs are no multiple of the group size 24"));
  EXPECT_TRUE(says(with("group_size", -1), "tensor x.m.qzeros:"));
  EXPECT_TRUE(says(with("version", "marlin"), "version: marlin is not supported"));
  EXPECT_TRUE(says(with("version", "gemv"), "tensor x.m."));
  EXPECT_TRUE(says(with("version", "gemv_fast"), "tensor x.m.qweight: found i32"));
  EXPECT_EQ(with("version", "ExLlama"), "");
  EXPECT_TRUE(says(with("version", 4), "version: expected"));
  EXPECT_TRUE(says(with("backend", "llm-awq"), "x.m.scaled_zeros is missing"));
  EXPECT_TRUE(says(with("zero_point", "no"), "zero_point: expected"));
  EXPECT_TRUE(says(with("modules_to_not_convert", "lm_head"), "modules_to_not_convert: expected"));
  EXPECT_EQ(with("modules_to_not_convert", Json::Array{"lm_head"}), "");
  EXPECT_TRUE(says(refusal([](C& c) {
                     Json config = *c.config.find("quantization_config");
                     config.set("version", "gemv");
                     config.set("group_size", 16);
                     c.config.set("quantization_config", config);
                     c.reshape("x.m.qweight", DType::i32, {32, 8});
                   }),
                   "has no groups of 16"));
}

TEST(AwqHostile, FusingIsChecked) {
  const auto fused = [](Json::Object map, Json length = 512) {
    return refusal([&](C& c) {
      Json config = *c.config.find("quantization_config");
      config.set("do_fuse", true);
      config.set("fuse_max_seq_len", length);
      config.set("modules_to_fuse", std::move(map));
      c.config.set("quantization_config", config);
    });
  };
  EXPECT_EQ(fused({{"attention", Json::Array{"m"}}, {"hidden_size", 64}, {"use_alibi", false}}), "");
  EXPECT_TRUE(
      says(fused({{"attention", Json::Array{"m", "q_proj"}}}), "attention: the model has no module \"q_proj\""));
  EXPECT_TRUE(says(fused({{"mlp", "m"}}), "mlp: expected"));
  EXPECT_TRUE(says(fused({{"hidden_size", 128}}), "hidden_size is 128, but the model's is 64"));
  EXPECT_TRUE(says(fused({{"use_alibi", 3}}), "use_alibi: expected"));
  EXPECT_TRUE(says(fused({}, nullptr), "fusing needs fuse_max_seq_len"));
  EXPECT_TRUE(says(fused({}, 0), "fuse_max_seq_len: 0"));
}

TEST(AwqHostile, LlmAwqScalesThatDoNotDivideTheInputs) {
  C c = good("gemv_fast");
  c.config = Json::Object{};
  c.tensors["x.m.scaled_zeros"] = c.tensors.at("x.m.qzeros");
  c.tensors.erase("x.m.qzeros");
  const auto check = [&](std::int64_t groups) {
    for (std::int64_t i = 0; i < 32 * 32; ++i)
      store_from_f32(DType::f16, c.tensors["x.m.scales"].data(), i, i < groups * 32 ? 1.0F : 0.0F);
    const test::TempDir dir;
    c.write(dir / "model");
    QuantMachine machine;
    return test::refusal(dir / "model", machine.exec, {});
  };
  EXPECT_EQ(check(2), "");
  EXPECT_TRUE(says(check(0), "tensor x.m.scales: 0 rows"));
  EXPECT_TRUE(says(check(3), "tensor x.m.scales: 3 rows"));
}

}  // namespace
}  // namespace nibble::awq
