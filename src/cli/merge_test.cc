// --lora and the command merge, as programs, on quantized bases.
#include <gtest/gtest.h>

#include "base/json.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "support/edited_checkpoint.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::Ran;
using test::TempDir;

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

Ran nibble_on(const std::string& command, const fs::path& model, const std::string& flags) {
  return test::run_command(quoted(test::nibble_binary()) + " " + command + " " + quoted(model) + " " + flags);
}

/// An adapter of random values for the two-layer models of hidden size 256 in tests/data.
void write_adapter(const fs::path& folder) {
  test::EditedCheckpoint file;
  Rng rng(7);
  const auto add = [&](const std::string& name, Shape shape, float scale) {
    Tensor tensor(std::move(shape), DType::f32);
    for (float& value : tensor.as<float>()) value = scale * (static_cast<float>(rng.next() % 2001) / 1000 - 1);
    file.tensors.emplace("base_model.model.model." + name, tensor);
  };
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    add(layer + "self_attn.q_proj.lora_A.weight", {4, 256}, 0.1f);
    add(layer + "self_attn.q_proj.lora_B.weight", {256, 4}, 0.1f);
    add(layer + "mlp.down_proj.lora_A.weight", {4, 512}, 0.1f);
    add(layer + "mlp.down_proj.lora_B.weight", {256, 4}, 0.1f);
  }
  file.write(folder);
  fs::rename(folder / "model.safetensors", folder / "adapter_model.safetensors");
  fs::remove(folder / "config.json");
  test::write_text(folder / "adapter_config.json",
                   R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]})");
}

double number(const Json& json, const char* key) { return json.find(key)->number(key); }

TEST(MergeCommand, IntoTheFloatsOfEveryQuantizedBase) {
  const TempDir dir;
  write_adapter(dir / "lora");
  for (const std::string base : {"gptq/ag_b3_g64_sym_desc", "bnb/ckpt/bnb_nf4_bf16", "quanto/ckpt/quanto_int4_bf16",
                                 "quanto/ckpt/quanto_float8_bf16"}) {
    SCOPED_TRACE(base);
    const Ran ran = nibble_on("merge", test::data(base),
                              "--lora " + quoted(dir / "lora") + " -o " + quoted(dir / "out") +
                                  " --dtype f32 --force --json -t 2 --tokens 64");
    ASSERT_EQ(ran.code, 0) << ran.err;
    const Json json = Json::parse(ran.out, "json");
    EXPECT_EQ(number(json, "changed"), 4);
    EXPECT_GE(number(json, "dequantized"), 14);
    EXPECT_LT(number(json, "kl"), 5e-6);  // kernels do not round every weight to bf16, decoding does
    EXPECT_GT(number(json, "same_top"), 0.95);
    const auto written = Checkpoint::open((dir / "out").string());
    EXPECT_EQ(written->config().find("quantization_config"), nullptr);
    EXPECT_EQ(written->at("model.layers.0.self_attn.q_proj.weight").shape(), (Shape{256, 256}));
    EXPECT_FALSE(fs::exists(dir / "out" / "quanto_qmap.json"));
  }
}

TEST(MergeCommand, Requantized) {
  const TempDir dir;
  write_adapter(dir / "lora");
  const std::string flags = "--lora " + quoted(dir / "lora") + " -o " + quoted(dir / "out") + " --tokens 64 --json";
  const Ran ran = nibble_on("merge", test::data("quanto/ckpt/quanto_int4_bf16"), flags + " --requantize");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json json = Json::parse(ran.out, "json");
  EXPECT_EQ(json.find("weights")->string("weights"), "quanto qint4");
  EXPECT_GT(number(json, "relative_error"), 0);
  EXPECT_GT(number(json, "kl"), 0);
  EXPECT_TRUE(fs::exists(dir / "out" / "quanto_qmap.json"));
  EXPECT_FALSE(fs::exists(dir / "out.floats.partial"));
}

TEST(MergeCommand, RequantizedNf4) {
  const TempDir dir;
  write_adapter(dir / "lora");
  const Ran ran =
      nibble_on("merge", test::data("bnb/ckpt/bnb_nf4_bf16"),
                "--lora " + quoted(dir / "lora") + " -o " + quoted(dir / "out") + " --tokens 64 --json --requantize");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json json = Json::parse(ran.out, "json");
  EXPECT_NE(json.find("weights")->string("weights").find("bnb4"), std::string::npos);
  EXPECT_GT(number(json, "kl"), 0);
  const Json before = Json::read(test::data("bnb/ckpt/bnb_nf4_bf16/config.json")),
             after = Json::read(dir / "out" / "config.json");
  EXPECT_EQ(after.find("quantization_config")->find("bnb_4bit_quant_type")->string("type"),
            before.find("quantization_config")->find("bnb_4bit_quant_type")->string("type"));
}

TEST(MergeCommand, Refuses) {
  const TempDir dir;
  write_adapter(dir / "lora");
  const fs::path base = test::data("gptq/ag_b3_g64_sym_desc");
  const auto expect_error = [](const Ran& ran, const std::string& part) {
    EXPECT_EQ(ran.code, 2) << ran.err;
    EXPECT_NE(ran.err.find(part), std::string::npos) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  };
  const std::string out = " -o " + quoted(dir / "out"), lora = "--lora " + quoted(dir / "lora");
  expect_error(nibble_on("merge", base, "--lora ./nowhere" + out), "nowhere");
  expect_error(nibble_on("merge", base, lora + "=x" + out), "no finite number");
  expect_error(nibble_on("merge", base, lora + out + " --requantize"), "gptq needs calibration data");
  expect_error(nibble_on("merge", test::data("models/llama"), lora + out), "adapter_model.safetensors: tensor");
  EXPECT_FALSE(fs::exists(dir / "out" / "model.safetensors"));
  test::write_text(dir / "lora" / "x", "");
  expect_error(nibble_on("merge", base, lora + " -o " + quoted(dir / "lora")), "is not empty");
}

TEST(LoraFlag, OfTheOtherCommands) {
  const TempDir dir;
  write_adapter(dir / "lora");
  const fs::path base = test::data("bnb/ckpt/bnb_nf4_bf16");
  test::write_text(dir / "ids.json", R"({"ids": [[1, 5, 9, 13]]})");
  const auto logits = [&](const std::string& flags) {
    const Ran ran = nibble_on("logits", base, "--ids " + quoted(dir / "ids.json") + " -o " + quoted(dir / "l") + flags);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return Checkpoint::open((dir / "l").string())->at("logits.0").to_f32();
  };
  const std::string lora = " --lora " + quoted(dir / "lora");
  const std::vector<float> plain = logits("");
  EXPECT_NE(logits(lora), plain);
  EXPECT_EQ(logits(" --lora " + quoted(fs::path((dir / "lora").string() + "=0"))), plain);
  EXPECT_EQ(nibble_on("bench", base, "-p 4 -n 2 -r 1" + lora).code, 0);
  const std::string text = " -f " + quoted(test::source("models/demo/eval.txt"));
  EXPECT_EQ(nibble_on("run", test::source("models/demo"), "-p a -n 1" + lora).code, 2);
  EXPECT_EQ(nibble_on("perplexity", test::source("models/demo"), "--ctx 64 --chunks 1" + text + lora).code, 2);
}

}  // namespace
}  // namespace nibble
