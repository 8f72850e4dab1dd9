// A rotated model is the same function: compared by its logits, for every family that can be rotated.
#include "run/rotation/rotation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "support/edited_checkpoint.h"
#include "support/loaded_model.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::EditedCheckpoint;

const std::vector<std::int32_t> kIds{1, 5, 9, 13, 2, 7, 30, 11, 4, 3};

std::vector<float> logits_of(const std::shared_ptr<const Checkpoint>& checkpoint, Exec& exec) {
  const std::unique_ptr<Model> model = Model::load(checkpoint, {}, exec);
  const std::int64_t sequence = model->open_sequence();
  const BatchItem item{sequence, kIds, true, 0};
  std::vector<float> logits;
  model->forward({&item, 1}, logits, exec);
  return logits;
}

/// The checkpoint in f32, with norms that scale every channel and biases that are not zero.
EditedCheckpoint telling(const fs::path& folder) {
  EditedCheckpoint edited(*Checkpoint::open(folder.string()));
  Rng rng(11);
  for (auto& [name, tensor] : edited.tensors) {
    const std::vector<float> values = tensor.view().to_f32();
    Tensor f32(tensor.shape(), DType::f32);
    std::copy(values.begin(), values.end(), f32.as<float>().begin());
    const bool norm = name.find("norm") != std::string::npos, bias = name.find(".bias") != std::string::npos;
    for (float& value : f32.as<float>()) {
      if (norm) value = static_cast<float>(0.25 + 1.5 * rng.uniform());
      if (bias) value = static_cast<float>(rng.uniform() - 0.5);
    }
    tensor = f32;
  }
  return edited;
}

TEST(Rotation, LeavesTheLogitsAlone) {
  for (const std::string family : {"llama", "llama-v4-bias-tied", "mistral", "qwen2-v4", "qwen2-window", "qwen3",
                                   "qwen3-v4-window-bias", "mixtral", "mixtral-v4-window"}) {
    SCOPED_TRACE(family);
    const test::TempDir dir;
    telling(test::data("models/" + family)).write(dir / "m");
    const auto source = Checkpoint::open((dir / "m").string());
    test::F32Machine m;
    const Rotation rotation(source, m.exec);
    const auto rotated = rotation.rotate({.seed = 3}, m.pool);
    EXPECT_LT(test::relative_error(logits_of(rotated, m.exec), logits_of(source, m.exec)), 1e-5);
    const std::string q = "model.layers.1.self_attn.q_proj.weight";
    EXPECT_FALSE(test::same_tensor(rotated->at(q), source->at(q)));
    for (const float one : rotated->at("model.layers.1.input_layernorm.weight").to_f32()) EXPECT_EQ(one, 1);
  }
}

TEST(Rotation, UntiesTheHeadOnlyWhereTheFinalNormAsksForIt) {
  const test::TempDir dir;
  EditedCheckpoint edited = telling(test::data("models/qwen2-v4"));
  ASSERT_FALSE(edited.tensors.contains("lm_head.weight"));
  test::F32Machine m;
  for (const bool constant : {false, true}) {
    SCOPED_TRACE(constant);
    if (constant) {
      for (float& value : edited.tensors.at("model.norm.weight").as<float>()) value = 1.5f;
    }
    edited.write(dir / "m");
    const auto source = Checkpoint::open((dir / "m").string());
    const Rotation rotation(source, m.exec);
    const auto rotated = rotation.rotate({}, m.pool);
    EXPECT_EQ(rotated->find("lm_head.weight") == nullptr, constant);
    EXPECT_EQ(rotated->config().find("tie_word_embeddings")->boolean("tied"), constant);
    EXPECT_EQ(rotation.notes().empty(), constant);
    EXPECT_EQ(rotated->at("model.norm.weight").at(0), constant ? 1.5f : 1.0f);
    EXPECT_LT(test::relative_error(logits_of(rotated, m.exec), logits_of(source, m.exec)), 1e-5);
    const auto preview = rotation.preview();
    ASSERT_EQ(preview->tensors().size(), rotated->tensors().size());
    for (std::size_t i = 0; i < preview->tensors().size(); ++i) {
      const TensorEntry &a = preview->tensors()[i], &b = rotated->tensors()[i];
      EXPECT_TRUE(a.name == b.name && a.view.shape() == b.view.shape() && a.view.dtype() == b.view.dtype()) << a.name;
    }
  }
}

TEST(Rotation, SameBytesForAnyThreadsAndPlace) {
  const test::TempDir dir;
  const auto source = Checkpoint::open(test::data("models/mixtral").string());
  test::F32Machine one(1), three(3);
  const auto a = Rotation(source, one.exec).rotate({.seed = 5}, one.pool);
  const auto b = Rotation(source, three.exec).rotate({.seed = 5, .folder = dir.path()}, three.pool);
  const auto other = Rotation(source, one.exec).rotate({.seed = 6}, one.pool);
  EXPECT_TRUE(fs::is_empty(dir.path()));
  ASSERT_EQ(a->tensors().size(), b->tensors().size());
  for (const TensorEntry& entry : a->tensors()) {
    EXPECT_TRUE(test::same_tensor(entry.view, b->at(entry.name))) << entry.name;
    EXPECT_EQ(entry.view.dtype(), source->at(entry.name).dtype()) << entry.name;
    b->release(b->at(entry.name));  // values stay
    EXPECT_TRUE(test::same_tensor(entry.view, b->at(entry.name))) << entry.name;
  }
  const std::string o = "model.layers.0.self_attn.o_proj.weight";
  EXPECT_FALSE(test::same_tensor(a->at(o), other->at(o)));
}

TEST(Rotation, TakesLargeChannelsApart) {
  const test::TempDir dir;
  EditedCheckpoint edited = telling(test::data("models/llama"));
  const std::string gate = "model.layers.0.mlp.gate_proj.weight";
  const auto peak = [&](const View& view) {
    double largest = 0, squares = 0;
    for (const float value : view.to_f32()) {
      largest = std::max(largest, std::abs(static_cast<double>(value)));
      squares += static_cast<double>(value) * value;
    }
    return largest / std::sqrt(squares / static_cast<double>(view.count()));
  };
  for (std::size_t i = 7; i < edited.tensors.at(gate).as<float>().size(); i += 48) {
    edited.tensors.at(gate).as<float>()[i] *= 50;
  }
  edited.write(dir / "m");
  const auto source = Checkpoint::open((dir / "m").string());
  test::F32Machine m;
  EXPECT_LT(peak(Rotation(source, m.exec).rotate({}, m.pool)->at(gate)), 0.6 * peak(source->at(gate)));
}

std::string refused(const std::shared_ptr<const Checkpoint>& source) {
  test::F32Machine m;
  return test::error_of([&] { Rotation(source, m.exec).rotate({}, m.pool); });
}

TEST(Rotation, RefusesWhatItCannotKeep) {
  for (const std::string family : {"gpt2-v4", "opt", "bloom", "neox", "starcoder2"}) {
    EXPECT_TRUE(test::says(refused(Checkpoint::open(test::data("models/" + family).string())), "LayerNorm")) << family;
  }
  for (const std::string family : {"bert-mlm", "t5", "vit"}) {
    EXPECT_TRUE(test::says(refused(Checkpoint::open(test::data("models/" + family).string())), "only decoders"))
        << family;
  }
  EXPECT_TRUE(
      test::says(refused(Checkpoint::open(test::data("bnb/ckpt/bnb_nf4_bf16").string())), "already quantized (bnb4)"));
  const test::TempDir dir;
  EditedCheckpoint edited = telling(test::data("models/llama"));
  edited.tensors.at("model.layers.0.mlp.up_proj.weight").as<float>()[5] = std::nanf("");
  edited.write(dir / "m");
  EXPECT_TRUE(test::says(refused(Checkpoint::open((dir / "m").string())), "up_proj.weight: has a value that is not"));
}

}  // namespace
}  // namespace nibble
