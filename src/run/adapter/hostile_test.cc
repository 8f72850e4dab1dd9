// Wrong adapters: each is refused by one line that names file and tensor or field.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "run/adapter/bind.h"
#include "support/edited_checkpoint.h"
#include "support/loaded_model.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::EditedCheckpoint;

const std::string kQ0 = "base_model.model.model.layers.0.self_attn.q_proj.";

/// A good adapter of models/llama that a test spoils.
struct Spoiled {
  EditedCheckpoint file;
  Json config;

  explicit Spoiled(const std::string& name = "llama-rslora")
      : config(Json::read(test::data("adapters/" + name + "/adapter_config.json"))) {
    const fs::path folder = test::data("adapters/" + name);
    const char* weights = fs::exists(folder / "adapter_model.bin") ? "adapter_model.bin" : "adapter_model.safetensors";
    const auto from = Checkpoint::open((folder / weights).string());
    for (const TensorEntry& entry : from->tensors()) file.tensors.emplace(entry.name, Tensor(entry.view));
  }

  /// The message with which opening or binding fails; "" when both work.
  std::string message(const std::string& base = "llama") const {
    const test::TempDir dir;
    file.write(dir / "raw");
    fs::create_directory(dir / "a");
    fs::rename(dir / "raw" / "model.safetensors", dir / "a" / "adapter_model.safetensors");
    test::write_text(dir / "a" / "adapter_config.json", config.dump(2));
    return message_of((dir / "a").string(), base);
  }

  static std::string message_of(const std::string& folder, const std::string& base = "llama") {
    ThreadPool pool(1);
    Arena arena;
    Exec exec{.target = Target::ref, .pool = pool, .arena = arena, .compute = DType::f32};
    try {
      const std::vector<AdapterUse> uses{{Adapter::open(folder), 1}};
      load_adapted(Checkpoint::open(test::data("models/" + base).string()), uses, {}, exec);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    return "";
  }
};

void expect_parts(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << " not in: " << message;
}

TEST(HostileAdapter, TheGoodOneWorks) { EXPECT_EQ(Spoiled().message(), ""); }

TEST(HostileAdapter, ConfigFields) {
  const auto with = [](const char* key, Json value) {
    Spoiled s;
    s.config.set(key, std::move(value));
    return s.message();
  };
  expect_parts(with("r", 0), {"adapter_config.json", "field r", "0"});
  expect_parts(with("r", "four"), {"adapter_config.json", "field r"});
  expect_parts(with("lora_alpha", 1e300), {"adapter_config.json", "field lora_alpha"});
  expect_parts(with("lora_alpha", "nan"), {"adapter_config.json", "field lora_alpha"});
  expect_parts(with("peft_type", "IA3"), {"adapter_config.json", "IA3", "LORA"});
  expect_parts(with("peft_type", Json()), {"adapter_config.json", "peft_type"});
  expect_parts(with("bias", "some"), {"adapter_config.json", "field bias", "some"});
  expect_parts(with("use_qalora", true), {"field use_qalora"});
  expect_parts(with("layer_replication", Json::Array{Json::Array{0, 1}}), {"field layer_replication"});
  expect_parts(with("trainable_token_indices", Json::Array{1}), {"field trainable_token_indices"});
  expect_parts(with("init_lora_weights", "pissa_niter_4"), {"field init_lora_weights", "pissa_niter_4"});
  expect_parts(with("rank_pattern", Json::Object{{"q_proj", 0}}), {"field rank_pattern", "q_proj"});
  expect_parts(with("rank_pattern", Json::Object{{"(", 1}}), {"field rank_pattern", "pattern"});
  expect_parts(with("target_modules", "("), {"field target_modules", "pattern"});
}

TEST(HostileAdapter, ConfigAgainstTensors) {
  Spoiled rank;
  rank.config.set("r", 5);
  expect_parts(rank.message(), {"adapter_model.safetensors", "lora_A.weight", "rank 3", "5"});
  Spoiled targets;
  targets.config.set("target_modules", Json::Array{"k_proj", "down_proj"});
  expect_parts(targets.message(), {"adapter_model.safetensors", "q_proj.lora_A.weight", "target_modules"});
  Spoiled dora;
  dora.config.set("use_dora", true);
  expect_parts(dora.message(), {"lora_A.weight", "use_dora", "missing"});
  Spoiled plain("llama-dora");
  plain.config.set("use_dora", false);
  expect_parts(plain.message(), {"lora_magnitude_vector", "use_dora"});
  Spoiled biased;
  biased.config.set("lora_bias", true);
  expect_parts(biased.message(), {"lora_bias", "missing"});
  Spoiled biases("llama-tied");
  biases.config.set("bias", "none");
  expect_parts(biases.message("llama-v4-bias-tied"), {"bias", "is \"none\""});
}

TEST(HostileAdapter, Tensors) {
  Spoiled partner;
  partner.file.tensors.erase(kQ0 + "lora_B.weight");
  expect_parts(partner.message(), {"adapter_model.safetensors", "q_proj.lora_A.weight", "lora_B is missing"});
  Spoiled flat;
  flat.file.reshape(kQ0 + "lora_A.weight", DType::f32, {3 * 48});
  expect_parts(flat.message(), {"q_proj.lora_A.weight", "matrix"});
  Spoiled empty;
  empty.file.reshape(kQ0 + "lora_A.weight", DType::f32, {0, 48});
  expect_parts(empty.message(), {"q_proj.lora_A.weight", "no elements"});
  Spoiled integers;
  integers.file.reshape(kQ0 + "lora_A.weight", DType::i32, {3, 48});
  expect_parts(integers.message(), {"q_proj.lora_A.weight", "i32"});
  Spoiled nan;
  nan.file.tensors.at(kQ0 + "lora_B.weight").as<float>()[1] = std::numeric_limits<float>::quiet_NaN();
  expect_parts(nan.message(), {"q_proj.lora_B.weight", "not finite"});
  Spoiled foreign;
  foreign.file.tensors.emplace("weights.of.somebody", Tensor({1}, DType::f32));
  expect_parts(foreign.message(), {"weights.of.somebody", "PEFT"});
}

TEST(HostileAdapter, AnotherBase) {
  Spoiled shape;
  shape.file.reshape(kQ0 + "lora_A.weight", DType::f32, {3, 40});
  expect_parts(shape.message(), {"q_proj.lora_A.weight", "[3, 40]", "[48, 48]"});
  expect_parts(Spoiled().message("gpt2-v4"), {"adapter_model.safetensors", "has no linear", "down_proj"});
  Spoiled absent;
  absent.file.tensors.emplace("base_model.model.score.weight", Tensor({2, 48}, DType::f32));
  expect_parts(absent.message(), {"base_model.model.score.weight", "no tensor score.weight"});
  Spoiled resized("llama-saved");
  resized.file.reshape("base_model.model.model.embed_tokens.weight", DType::f32, {98, 48});
  expect_parts(resized.message("llama-v4-bias-tied"), {"embed_tokens.weight", "[98, 48]", "[96, 48]"});
}

TEST(HostileAdapter, HalfWrittenFiles) {
  const test::TempDir dir;
  expect_parts(Spoiled::message_of((dir / "none").string()), {"none"});
  fs::create_directory(dir / "a");
  expect_parts(Spoiled::message_of((dir / "a").string()), {"adapter_config.json", "missing"});
  const fs::path from = test::data("adapters/llama-rslora");
  fs::copy_file(from / "adapter_config.json", dir / "a" / "adapter_config.json");
  expect_parts(Spoiled::message_of((dir / "a").string()), {"neither adapter_model.safetensors nor adapter_model.bin"});
  const std::string whole = test::read_text(from / "adapter_model.safetensors");
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{300}, whole.size() - 1}) {
    test::write_text(dir / "a" / "adapter_model.safetensors", whole.substr(0, size));
    expect_parts(Spoiled::message_of((dir / "a").string()), {"adapter_model.safetensors"});
  }
  const std::string config = test::read_text(from / "adapter_config.json");
  test::write_text(dir / "a" / "adapter_config.json", config.substr(0, config.size() / 2));
  expect_parts(Spoiled::message_of((dir / "a").string()), {"adapter_config.json"});
  test::write_text(dir / "a" / "adapter_config.json", R"({"peft_type": "LORA", "lora_alpha": NaN})");
  expect_parts(Spoiled::message_of((dir / "a").string()), {"adapter_config.json"});
}

TEST(HostileAdapter, TwoThatReplaceTheSame) {
  ThreadPool pool(1);
  Arena arena;
  Exec exec{.target = Target::ref, .pool = pool, .arena = arena, .compute = DType::f32};
  const auto saved = Adapter::open(test::data("adapters/llama-saved").string());
  const std::vector<AdapterUse> uses{{saved, 1}, {saved, 1}};
  try {
    load_adapted(Checkpoint::open(test::data("models/llama-v4-bias-tied").string()), uses, {}, exec);
    FAIL();
  } catch (const Error& error) {
    expect_parts(error.what(), {"adapter_model.safetensors", "also replaced by"});
  }
}

}  // namespace
}  // namespace nibble
