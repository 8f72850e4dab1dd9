// --rotate as a user meets it: the result is an ordinary checkpoint of the same function.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "quant/scheme.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::Ran;
using test::TempDir;

Ran nibble(const std::string& command, const fs::path& model, const std::string& flags) {
  return test::run_command("'" + test::nibble_binary().string() + "' " + command + " '" + model.string() + "' " +
                           flags);
}

std::string to(const fs::path& out) { return "-o '" + out.string() + "' "; }

std::vector<float> logits(const fs::path& model, const TempDir& dir) {
  test::write_text(dir / "ids.json", R"({"ids": [[1, 5, 9, 13, 2, 7]]})");
  const Ran ran = nibble("logits", model, "--dtype f32 --ids '" + (dir / "ids.json").string() + "' " + to(dir / "l"));
  EXPECT_EQ(ran.code, 0) << ran.err;
  return Checkpoint::open((dir / "l").string())->at("logits.0").to_f32();
}

const std::string kGptq = "--method gptq --group-size 64 --dataset builtin --nsamples 2 --seqlen 32 --rotate ";

TEST(RotateFlag, ConvertWritesTheSameFunction) {
  const TempDir dir;
  const fs::path model = test::data("models/qwen2-v4");  // tied, with biases
  const Ran ran = nibble("convert", model, to(dir / "out") + "--rotate --to f32");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_NE(ran.out.find("unties the output head"), std::string::npos) << ran.out;
  EXPECT_LT(test::relative_error(logits(dir / "out", dir), logits(model, dir)), 1e-4);
  const auto written = Checkpoint::open((dir / "out").string());
  EXPECT_FALSE(written->config().find("tie_word_embeddings")->boolean("tied"));
  EXPECT_EQ(written->at("lm_head.weight").dtype(), DType::f32);
}

TEST(RotateFlag, EveryMethodQuantizesTheRotatedModel) {
  const TempDir dir;
  const fs::path model = test::source("models/demo");
  const std::vector<float> expected = logits(model, dir);
  int done = 0;
  for (const std::string flags :
       {"--weights int8", "--method bnb-nf4", "--method llm-int8", "--method gptq --bits 8 --algorithm rtn",
        "--method awq --group-size 64 --dataset builtin --nsamples 2 --seqlen 64 --no-check-kl",
        "--method aqlm --aqlm 1x8 --preset fast --dataset builtin --nsamples 2 --seqlen 64 --no-check-kl "
        "--include model.layers.0.self_attn.q_proj"}) {
    SCOPED_TRACE(flags);
    const fs::path out = dir / ("out" + std::to_string(done++));
    const Ran ran = nibble("quantize", model, to(out) + "--rotate --json " + flags);
    ASSERT_EQ(ran.code, 0) << ran.err;
    EXPECT_EQ(Json::parse(ran.out, "json").find("rotate_seed")->integer("seed"), 0);
    EXPECT_LT(test::relative_error(logits(out, dir), expected), 0.5);  // in another basis they would be noise
    EXPECT_NE(WeightStore(Checkpoint::open(out.string())).scheme(), nullptr);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), done + 2)
      << "only ids.json and the logits lie beside the results";
}

TEST(RotateFlag, ADryRunPlansTheSameAndWritesNothing) {
  const TempDir dir;
  const fs::path model = test::data("models/qwen2-v4");
  const std::string flags = to(dir / "out") + "--method bnb-nf4 --rotate --json ";
  const Ran dry = nibble("quantize", model, flags + "--dry-run");
  ASSERT_EQ(dry.code, 0) << dry.err;
  EXPECT_TRUE(fs::is_empty(dir.path()));
  const Ran ran = nibble("quantize", model, flags);
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json before = Json::parse(dry.out, "dry"), after = Json::parse(ran.out, "ran");
  for (const char* key : {"bytes", "new_bytes", "tensors", "notes"}) EXPECT_EQ(*before.find(key), *after.find(key));
  EXPECT_FALSE(Checkpoint::open((dir / "out").string())->config().find("tie_word_embeddings")->boolean("tied"));
  // Quanto has nothing to say in config.json, which must not be the source's all the same.
  ASSERT_EQ(nibble("quantize", model, to(dir / "quanto") + "--rotate").code, 0);
  EXPECT_FALSE(Checkpoint::open((dir / "quanto").string())->config().find("tie_word_embeddings")->boolean("tied"));
}

TEST(RotateFlag, AKilledJobGoesOnToTheSameBytes) {
  const TempDir dir;
  const fs::path model = test::source("models/demo");
  const std::string flags = kGptq + "--include 'model.layers.[01].*' --no-check-kl ";
  const Ran whole = nibble("quantize", model, to(dir / "whole") + flags + "-t 2");
  ASSERT_EQ(whole.code, 0) << whole.err;
  const fs::path out = dir / "out", journal = out.string() + ".quantize.partial";
  const std::string command =
      "'" + test::nibble_binary().string() + "' quantize '" + model.string() + "' " + to(out) + flags + "-t 1";
  // Killed as soon as something is finished.
  test::run_command(command + " & job=$!; for i in $(seq 600); do ls '" + journal.string() +
                    "'/*/unit-00001 >/dev/null 2>&1 && break; sleep 0.02; done; kill -KILL $job; wait $job");
  const Ran again = test::run_command(command);
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("resumed"), std::string::npos) << again.out;
  EXPECT_TRUE(test::files_of_result(out) == test::files_of_result(dir / "whole"));
  EXPECT_TRUE(fs::exists(out) && !fs::exists(journal));
}

TEST(RotateFlag, ComparesWithTheSourceAsItWas) {
  const TempDir dir;
  const Ran ran = nibble("quantize", test::source("models/demo"), to(dir / "out") + kGptq + "--bits 8 --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_LT(Json::parse(ran.out, "json").find("kl")->number("kl"), 0.02);
}

TEST(RotateFlag, RefusesInOneLine) {
  const TempDir dir;
  const auto expect_error = [&](const std::string& model, const std::string& flags, const std::string& part) {
    const Ran ran = nibble("quantize", test::data("models/" + model), to(dir / "out") + flags);
    EXPECT_EQ(ran.code, 2) << model;
    EXPECT_NE(ran.err.find(part), std::string::npos) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_FALSE(fs::exists(dir / "out"));
  };
  expect_error("gpt2-v4", "--rotate", "GPT2LMHeadModel cannot be rotated: its LayerNorm subtracts a mean");
  expect_error("opt", "--rotate --dry-run", "OPTForCausalLM cannot be rotated: its LayerNorm subtracts a mean");
  expect_error("bert-mlm", "--rotate", "cannot be rotated: only decoders with RMSNorm can");
  expect_error("llama", "--rotate --include nothing", "matches no linear module");
  EXPECT_EQ(nibble("quantize", test::data("models/llama"), to(dir / "out") + "--rotate-seed 3").code, 2);
}

}  // namespace
}  // namespace nibble
