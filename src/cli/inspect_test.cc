#include <gtest/gtest.h>

#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "base/json.h"
#include "base/sha256.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

test::Ran inspect(const fs::path& path, const std::string& flags = "") {
  return test::run_command("'" + test::nibble_binary().string() + "' inspect '" + path.string() + "' " + flags);
}

bool contains(const std::string& all, const std::string& part) { return all.find(part) != std::string::npos; }

void save(const fs::path& folder, std::vector<float> values) {
  CheckpointWriter writer(folder, {{"w", DType::f32, {static_cast<std::int64_t>(values.size())}}});
  writer.write("w", std::as_bytes(std::span(values)));
  writer.commit();
}

TEST(Inspect, CountsTheDemoModel) {
  const test::Ran ran = inspect(test::source("models/demo"), "--json --tensors --verify -t 2");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json json = Json::parse(ran.out, "inspect");
  EXPECT_EQ(json.find("architecture")->string(""), "LlamaForCausalLM");
  EXPECT_EQ(json.find("parameters")->integer(""), 6819072);
  EXPECT_EQ(json.find("bytes")->integer(""), 2 * 6819072);
  EXPECT_EQ(json.find("bits_per_weight")->number(""), 16);
  EXPECT_EQ(json.find("tensors")->array("").size(), 57U);
  EXPECT_TRUE(json.find("verify")->find("ok")->boolean(""));
  EXPECT_EQ(json.find("verify")->find("values")->integer(""), 6819072);
  EXPECT_TRUE(contains(inspect(test::source("models/demo")).out, "model.layers.*.mlp.up_proj.weight"));
}

TEST(Inspect, NamesSchemeAndBitsOfAQuantizedModel) {
  const test::TempDir dir;
  for (const std::string weights : {"int8", "int4", "int2", "float8"}) {
    const fs::path out = dir / weights;
    const test::Ran made =
        test::run_command("'" + test::nibble_binary().string() + "' quantize '" + test::source("models/demo").string() +
                          "' -o '" + out.string() + "' --weights " + weights);
    ASSERT_EQ(made.code, 0) << made.err;
    const test::Ran ran = inspect(out, "--json --verify");
    ASSERT_EQ(ran.code, 0) << ran.err;
    EXPECT_TRUE(contains(ran.out, "quanto")) << ran.out.substr(0, 400);
  }
}

TEST(Inspect, SaysPerModuleHowItIsStoredAndWhy) {
  const test::Ran ran = inspect(test::data("gptq/ag_b3_g64_sym_desc"), "--modules");
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_TRUE(contains(ran.out, "scheme      gptq, by quant_method in quantize_config.json")) << ran.out;
  EXPECT_TRUE(contains(ran.out, "| model.layers.1.mlp.up_proj"));
  EXPECT_TRUE(contains(ran.out,
                       "int3, group_size 64, sym, desc_act, inputs reordered by g_idx, zero points v1 (z - 1 "
                       "stored; symmetric zero points prove it)"));
  const Json json = Json::parse(inspect(test::data("bnb/ckpt/bnb_nf4_bf16"), "--json").out, "inspect");
  EXPECT_EQ(json.find("scheme")->string(""), "bnb4");
  EXPECT_EQ(json.find("scheme_from")->string(""), "quant_method in config.json");
  const Json& module = json.find("modules")->array("").front();
  EXPECT_EQ(module.find("form")->string("").rfind("nf4, blocksize 64", 0), 0U);
  EXPECT_EQ(module.find("shape")->array("").size(), 2U);
}

TEST(Inspect, BrokenFilesAreOneLineAndExitCodeTwo) {
  const test::TempDir dir;
  test::write_text(dir / "pointer.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  test::write_text(dir / "page.safetensors", "<!DOCTYPE html><html>not found</html>");
  ASSERT_EQ(::mkfifo((dir / "fifo.safetensors").c_str(), 0600), 0);
  const std::pair<fs::path, const char*> cases[] = {
      {test::data("hostile_safetensors/truncated.safetensors"), "truncated"},
      {test::data("hostile_safetensors/dup_key.safetensors"), "duplicate key"},
      {dir / "pointer.safetensors", "git-lfs pointer"},
      {dir / "page.safetensors", "web page"},
      {dir / "fifo.safetensors", "not a regular file"},
      {dir / "missing", "no such file or folder"},
      {dir.path(), "more than one *.safetensors"},
  };
  for (const auto& [path, part] : cases) {
    const test::Ran ran = inspect(path, "--verify");
    EXPECT_EQ(ran.code, 2) << path;
    EXPECT_TRUE(contains(ran.err, part)) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_EQ(ran.out, "");
  }
}

TEST(Inspect, VerifyFindsNanInfinityAndZeros) {
  const test::TempDir dir;
  save(dir / "zero", {0, -0.0F, 0});
  const test::Ran zero = inspect(dir / "zero", "--verify");
  EXPECT_EQ(zero.code, 0) << zero.err;
  EXPECT_TRUE(contains(zero.out, "tensor w is all zero")) << zero.out;
  save(dir / "nan", {1, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()});
  EXPECT_EQ(inspect(dir / "nan").code, 0) << "only --verify reads the values";
  const test::Ran nan = inspect(dir / "nan", "--verify");
  EXPECT_EQ(nan.code, 2);
  EXPECT_TRUE(contains(nan.err, "tensor w: 1 NaN, 1 infinite")) << nan.err;
}

TEST(Inspect, PicklesAreShownNotExecuted) {
  const test::Ran refused = inspect(test::data("torch/evil.pt"), "--verify");
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(contains(refused.out, "GLOBAL 'posix system'")) << refused.out;
  EXPECT_TRUE(contains(refused.err, "refuses to load posix.system")) << refused.err;
  const test::Ran shown = inspect(test::data("torch/evil.pt"), "--pickle");
  EXPECT_EQ(shown.code, 0);
  EXPECT_TRUE(contains(shown.out, "REDUCE"));
  EXPECT_FALSE(fs::exists("/tmp/nibble-executed"));
}

TEST(Inspect, VerifyComparesCacheBlobsAndZipChecksums) {
  const test::TempDir dir;
  save(dir / "plain", {1, 2, 3});
  const std::string bytes = test::read_text(dir / "plain/model.safetensors");
  const std::string hash = sha256_hex(std::as_bytes(std::span(bytes)));
  const std::string commit(40, 'a');
  const fs::path repo = dir / "hub/models--org--name";
  fs::create_directories(repo / "blobs");
  fs::create_directories(repo / "refs");
  fs::create_directories(repo / "snapshots" / commit);
  test::write_text(repo / "blobs" / hash, bytes);
  test::write_text(repo / "refs/main", commit);
  fs::create_symlink("../../blobs/" + hash, repo / "snapshots" / commit / "model.safetensors");
  const auto in_cache = [&](const std::string& name) {
    return test::run_command("HF_HUB_CACHE='" + (dir / "hub").string() + "' '" + test::nibble_binary().string() +
                             "' inspect " + name + " --verify");
  };
  const test::Ran good = in_cache("org/name");
  EXPECT_EQ(good.code, 0) << good.err;
  EXPECT_TRUE(contains(good.out, "sha256 is that of its blob")) << good.out;
  std::string damaged = bytes;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  test::write_text(repo / "blobs" / hash, damaged);
  const test::Ran bad = in_cache("org/name@" + commit);
  EXPECT_EQ(bad.code, 2);
  EXPECT_TRUE(contains(bad.err, "damaged: its sha256 is")) << bad.err;
  EXPECT_EQ(in_cache("org/other").code, 2);

  const auto open = Checkpoint::open(test::data("torch/state_dict.bin").string());
  std::string zip = test::read_text(test::data("torch/state_dict.bin"));
  const std::string weight(reinterpret_cast<const char*>(open->at("fc.weight").data()), 24);
  zip[zip.find(weight) + 3] ^= 1;
  test::write_text(dir / "damaged.bin", zip);
  const test::Ran damaged_zip = inspect(dir / "damaged.bin", "--verify");
  EXPECT_EQ(damaged_zip.code, 2);
  EXPECT_TRUE(contains(damaged_zip.err, "is damaged: CRC error")) << damaged_zip.err;
}

}  // namespace
}  // namespace nibble
