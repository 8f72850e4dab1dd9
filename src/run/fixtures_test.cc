// Every checkpoint of the real libraries in ../shared/fixtures, one walk per folder of fixtures: it opens, every
// dequantized weight has the golden's bits, the logits are within the tolerance, and store(load(x)) gives back every
// tensor's bytes. Tests beside the schemes cover the small copies in tests/data.
#include <gtest/gtest.h>

#include "base/json.h"
#include "quant/common/module_tensors.h"
#include "support/golden_checkpoint.h"
#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::LoadedModel;
using test::relative_error;

using Digests = std::map<std::string, std::string>;  // of f32 values, by module

Digests digests_of(const Json& json) {
  Digests out;
  for (const auto& [module, digest] : json.object("digests")) out[module] = digest.string("digest");
  return out;
}

/// Every quantized module: the digest on both targets, and the exact inverse. Opens `model` through its config alone.
/// `complete`: the goldens hold every module.
void expect_weights(const fs::path& model, std::string_view scheme, const Digests& expected, bool complete = true) {
  test::QuantMachine m;
  const WeightStore weights(Checkpoint::open(model.string()));
  ASSERT_NE(weights.scheme(), nullptr) << model;
  EXPECT_EQ(weights.scheme()->name, scheme) << model;
  ASSERT_NE(weights.scheme()->store, nullptr) << scheme;
  const std::vector<std::string> modules = weights.reader()->modules();
  EXPECT_EQ(modules.size(), complete ? expected.size() : modules.size()) << model;
  EXPECT_FALSE(expected.empty()) << model;
  for (const std::string& module : modules) {
    const LinearWeights linear = weights.linear(module, m.exec);
    const auto digest = expected.find(module);
    EXPECT_TRUE(!complete || digest != expected.end()) << model << " " << module;
    for (const Target target : {Target::ref, Target::cpu}) {
      if (digest == expected.end()) continue;
      const std::vector<float> values = test::values_of(linear.weight, target, m.exec);
      EXPECT_EQ(test::sha256(std::as_bytes(std::span(values))), digest->second) << model << " " << module;
    }
    const auto& forms = weights.scheme()->forms;
    EXPECT_TRUE(std::any_of(forms.begin(), forms.end(),
                            [&](const SchemeForm& form) {
                              return form.layout == linear.weight.layout &&
                                     (form.bits == 0 || form.bits == linear.weight.bits);
                            }))
        << module << ": its layout and bits are missing in the scheme's forms";
    std::size_t found = 0;
    for (const StoredTensor& stored : weights.scheme()->store(module, linear, m.exec)) {
      const TensorEntry* original = weights.checkpoint().find(stored.name);
      ASSERT_NE(original, nullptr) << model << " " << stored.name;
      EXPECT_TRUE(test::same_tensor(stored.tensor, original->view)) << model << " " << stored.name;
      ++found;
    }
    EXPECT_EQ(found, quant::tensors_below(weights.checkpoint(), module + ".").size()) << model << " " << module;
  }
}

std::vector<std::int32_t> ids_of(const Json& list) {
  std::vector<std::int32_t> out;
  for (const Json& id : list.array("ids")) out.push_back(static_cast<std::int32_t>(id.integer("id")));
  return out;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

TEST(Fixtures, GptqAndAwq) {
  NIBBLE_NEED_SHARED(root, "fixtures/gptq_awq");
  const Json tokens = Json::read(root / "tokens.json");
  std::map<std::string, int> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(root / "ckpt")) {
    const fs::path folder = entry.path(), single = folder / "model.safetensors";
    const fs::path model = fs::exists(single) ? single : folder;  // golden.safetensors lies beside it
    const Json golden = Json::read(folder / "golden.json");
    const std::string name = folder.filename().string();
    const bool awq = name.find("awq") != std::string::npos || name.rfind("aq_", 0) == 0;
    ++found[awq ? "awq" : "gptq"];
    expect_weights(model, awq ? "awq" : "gptq", digests_of(*golden.find("dequant_fp32_sha256")));
    const auto logits = Checkpoint::open((folder / "golden.safetensors").string());
    LoadedModel loaded(model);
    int sequence = 0;
    for (const Json& list : tokens.find("eval_token_ids")->array("ids")) {
      const std::vector<float> exact = logits->at(cat("logits_ref32.", sequence++)).to_f32();
      EXPECT_LT(relative_error(loaded.one_shot(ids_of(list)), exact), 1e-5) << name;
    }
  }
  EXPECT_EQ(found["gptq"], 8);
  EXPECT_EQ(found["awq"], 4);
}

TEST(Fixtures, Bitsandbytes) {
  NIBBLE_NEED_SHARED(root, "fixtures/bnb_quanto");
  const Json index = Json::read(root / "index.json");
  int found = 0;
  for (const Json& variant : index.find("variants")->array("variants")) {
    const std::string family = variant.find("family")->string("family"), name = variant.find("name")->string("name");
    if (family != "bnb4" && family != "bnb8") continue;
    ++found;
    const test::TempDir dir;  // some variants share weights
    fs::copy_file(root / variant.find("config")->string("config"), dir / "config.json");
    fs::create_symlink(root / variant.find("ckpt")->string("ckpt") / "model.safetensors", dir / "model.safetensors");
    expect_weights(dir.path(), family, digests_of(*variant.find("dequant_sha256_fp32")));
    const auto golden = Checkpoint::open((root / variant.find("golden")->string("golden")).string());
    LoadedModel loaded(dir.path());
    std::size_t sequence = 0;
    for (const Json& list : index.find("sequences")->array("sequences")) {
      const std::string number = cat(".seq", sequence++);
      const auto set = [&](const char* kind) { return golden->find(cat("logits.", kind, number)); };
      const TensorEntry* exact = set("portable_fp32act") != nullptr ? set("portable_fp32act") : set("lib_fp32act");
      if (exact == nullptr && variant.find("base")->string("base") == "tiny-llama-fp32") exact = set("portable");
      const std::vector<float> logits = loaded.one_shot(ids_of(list));
      if (exact != nullptr) {
        EXPECT_LT(relative_error(logits, exact->view.to_f32()), 1e-4) << name << number;
        continue;
      }
      // The library's logits were rounded to bfloat16 on the way: as far from them as a float32 model is, at most.
      const double bound = variant.find("max_abs_logit_diff")->find("portable_vs_fp32ref")->number("bound");
      EXPECT_LT(largest_difference(logits, set("portable")->view.to_f32()), 1.5 * bound) << name << number;
    }
  }
  EXPECT_EQ(found, 6);
}

TEST(Fixtures, Aqlm) {
  NIBBLE_NEED_SHARED(root, "fixtures/aqlm_etc");
  int found = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("aqlm-", 0) != 0) continue;
    ++found;
    const auto golden = Checkpoint::open((root / "expected" / (name + ".safetensors")).string());
    Digests digests;
    for (const TensorEntry& tensor : golden->tensors()) {
      constexpr std::string_view kPrefix = "dequant.";
      if (tensor.name.rfind(kPrefix, 0) != 0) continue;
      const std::vector<float> values = tensor.view.to_f32();
      digests[tensor.name.substr(kPrefix.size())] = test::sha256(std::as_bytes(std::span(values)));
    }
    expect_weights(entry.path(), "aqlm", digests, false);
    LoadedModel loaded(entry.path());
    const View &ids = golden->at("input_ids"), &logits = golden->at("logits_fp32");
    std::vector<float> got;
    for (std::int64_t s = 0; s < ids.dim(0); ++s) {
      std::vector<std::int32_t> sequence;
      for (std::int64_t i = 0; i < ids.dim(1); ++i)
        sequence.push_back(static_cast<std::int32_t>(ids.at(s * ids.dim(1) + i)));
      const std::vector<float> part = loaded.one_shot(sequence);
      got.insert(got.end(), part.begin(), part.end());
    }
    EXPECT_LT(relative_error(got, logits.to_f32()), 1e-4) << name;
  }
  EXPECT_EQ(found, 5);
}

}  // namespace
}  // namespace nibble
