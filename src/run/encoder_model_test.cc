// BERT and ViT models of tests/data/models against Transformers (tools/make_encoder_goldens.py), and what is refused.
#include "run/encoder_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>

#include "base/error.h"
#include "support/edited_checkpoint.h"
#include "support/loaded_model.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::Goldens;
using test::relative_error;
using test::says;

constexpr double kF32Bound = 1e-4;
constexpr double kBf16Ratio = 1.5;

struct Loaded {
  explicit Loaded(const fs::path& folder, DType compute = DType::f32, Target target = Target::cpu, int threads = 2)
      : pool(threads), exec{target, pool, arena, compute}, model(Checkpoint::open(folder.string()), exec) {}
  ThreadPool pool;
  Arena arena;
  Exec exec;
  EncoderModel model;
};

/// All outputs of a golden file, by name without dtype: what the model gives for the file's inputs.
std::map<std::string, std::vector<float>> outputs_of(Loaded& m, const Checkpoint& golden) {
  std::map<std::string, std::vector<float>> out;
  if (m.model.reads_images()) {
    for (const EncoderOutput& one : m.model.encode_images(golden.at("pixel_values"), m.exec)) {
      for (const auto& [name, part] : {std::pair{"logits", &one.logits},
                                       {"pooler_output", &one.pooler_output},
                                       {"last_hidden_state", &one.last_hidden_state}}) {
        out[name].insert(out[name].end(), part->begin(), part->end());
      }
    }
    return out;
  }
  for (int i = 0; i < 2; ++i) {
    const auto integers = [&](const std::string& name) {
      const std::vector<float> wide = golden.at(name + "." + std::to_string(i)).to_f32();
      return std::vector<std::int32_t>(wide.begin(), wide.end());
    };
    const EncoderOutput one = m.model.encode(integers("ids"), integers("types"), m.exec);
    out["last_hidden_state." + std::to_string(i)] = one.last_hidden_state;
    out["pooler_output." + std::to_string(i)] = one.pooler_output;
  }
  return out;
}

/// "logits.0", "f32" -> "logits_f32.0"
std::string with_dtype(const std::string& name, const std::string& dtype) {
  const std::size_t dot = name.find('.');
  return name.substr(0, dot) + "_" + dtype + (dot == std::string::npos ? "" : name.substr(dot));
}

class Encoders : public testing::TestWithParam<const char*> {
 protected:
  fs::path folder() const { return test::data("models") / GetParam(); }
  std::shared_ptr<const Checkpoint> golden() const {
    return Checkpoint::open((folder() / "outputs.safetensors").string());
  }
};

TEST_P(Encoders, F32OnRefAndCpu) {
  const auto expected = golden();
  std::size_t compared = 0;
  for (const Target target : {Target::ref, Target::cpu}) {
    Loaded m(folder(), DType::f32, target);
    for (const auto& [name, values] : outputs_of(m, *expected)) {
      const TensorEntry* wanted = expected->find(with_dtype(name, "f32"));
      if (wanted == nullptr) continue;
      EXPECT_LT(relative_error(values, wanted->view.to_f32()), kF32Bound) << name;
      ++compared;
    }
  }
  std::size_t all = 0;
  for (const TensorEntry& entry : expected->tensors()) all += entry.name.find("_f32") != std::string::npos ? 1u : 0u;
  EXPECT_EQ(compared, 2 * all);
}

TEST_P(Encoders, Bf16IsAsCloseToF32AsTransformersIs) {
  const auto expected = golden();
  Loaded m(folder(), DType::bf16);
  for (const auto& [name, values] : outputs_of(m, *expected)) {
    const TensorEntry* rounded = expected->find(with_dtype(name, "bf16"));
    // A short sequence's few values are no measure of an error.
    if (rounded == nullptr || name.ends_with(".1") || name.starts_with("pooler")) continue;
    const std::vector<float> exact = expected->at(with_dtype(name, "f32")).to_f32();
    const double ours = relative_error(values, exact);
    EXPECT_LT(ours, kBf16Ratio * relative_error(rounded->view.to_f32(), exact)) << name;
    EXPECT_GT(ours, 0) << name;
  }
}

TEST_P(Encoders, ThreadsDoNotChangeABit) {
  Loaded one(folder(), DType::bf16, Target::cpu, 1), three(folder(), DType::bf16, Target::cpu, 3);
  EXPECT_EQ(outputs_of(one, *golden()), outputs_of(three, *golden()));
}

// vit-nf4: as bitsandbytes quantized it, its own logits.
INSTANTIATE_TEST_SUITE_P(Models, Encoders, testing::Values("bert", "bert-mlm", "vit", "vit-model", "vit-nf4"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

std::string refusal(const std::string& name, const std::function<void(test::EditedCheckpoint&)>& change) {
  test::EditedCheckpoint edited(*Checkpoint::open((test::data("models") / name / "model.safetensors").string()));
  change(edited);
  const test::TempDir dir;
  edited.write(dir / "m");
  return error_of([&] { Loaded model(dir / "m"); });
}

TEST(EncoderModel, NamesTheFieldOrTensor) {
  const auto with = [&](const char* model, const char* field, Json value) {
    return refusal(model, [&](test::EditedCheckpoint& m) { m.config.set(field, std::move(value)); });
  };
  EXPECT_EQ(with("bert", "hidden_size", 48), "");
  EXPECT_TRUE(says(with("bert", "num_attention_heads", 5), "field num_attention_heads is 5, which does not divide"));
  EXPECT_TRUE(
      says(with("bert", "position_embedding_type", "relative_key"), "field position_embedding_type: relative_key"));
  EXPECT_TRUE(says(with("bert", "is_decoder", true), "field is_decoder"));
  EXPECT_TRUE(says(with("bert", "type_vocab_size", 3), "token_type_embeddings.weight has shape [2, 48]"));
  EXPECT_TRUE(says(with("bert", "max_position_embeddings", -1), "field max_position_embeddings is -1"));
  EXPECT_TRUE(
      says(with("vit", "image_size", 16), "position_embeddings has shape [1, 10, 48], but config.json asks for"));
  EXPECT_TRUE(
      says(with("vit", "image_size", 13), "field patch_size: patches of 4 x 4 do not divide images of 13 x 13"));
  EXPECT_TRUE(
      says(with("vit", "image_size", Json::Array{12, 12, 12}), "field image_size: expected a number or [height"));
  EXPECT_TRUE(says(with("vit", "image_size", Json::Array{12, -4}), "field image_size is -4"));
  EXPECT_TRUE(says(with("vit", "patch_size", 0), "field patch_size is 0"));
  EXPECT_TRUE(says(with("vit", "num_channels", 1 << 20), "field num_channels"));
  EXPECT_TRUE(says(with("vit", "id2label", Json::Object{}), "field id2label is empty"));
  EXPECT_TRUE(says(with("vit", "id2label", Json::Object{{"0", "a"}}), "classifier.weight has shape [5, 48]"));
  EXPECT_TRUE(says(with("vit", "architectures", Json::Array{"BertModel"}), "config.json: field vocab_size is missing"));
  EXPECT_TRUE(says(with("vit", "architectures", Json::Array{"LlamaForCausalLM"}), "LlamaForCausalLM is a decoder"));
  EXPECT_TRUE(says(refusal("vit", [](auto& m) { m.reshape("vit.embeddings.cls_token", DType::bf16, {48}); }),
                   "tensor vit.embeddings.cls_token has shape [48], but config.json asks for [1, 1, 48]"));
  EXPECT_TRUE(says(refusal("bert", [](auto& m) { m.tensors.erase("encoder.layer.1.output.dense.bias"); }),
                   "tensor encoder.layer.1.output.dense.bias is missing"));
}

TEST(EncoderModel, OldNormNamesAreRead) {
  EXPECT_EQ(refusal("bert",
                    [](auto& m) {
                      for (const auto& [from, to] : {std::pair{"weight", "gamma"}, std::pair{"bias", "beta"}}) {
                        const std::string norm = "embeddings.LayerNorm.";
                        m.tensors[norm + to] = m.tensors.at(norm + from);
                        m.tensors.erase(norm + from);
                      }
                    }),
            "");
}

TEST(EncoderModel, RefusesWhatItCannotCompute) {
  Loaded bert(test::data("models/bert")), vit(test::data("models/vit"));
  const auto encode = [&](std::vector<std::int32_t> ids, std::vector<std::int32_t> types) {
    return error_of([&] { bert.model.encode(ids, types, bert.exec); });
  };
  EXPECT_EQ(encode({3, 5}, {0, 1}), "");
  EXPECT_EQ(encode({96}, {}), "token id 96 is outside the model's vocabulary of 96");
  EXPECT_EQ(encode({3}, {2}), "token type 2 is outside the model's token types of 2");
  EXPECT_TRUE(says(encode({3, 5}, {0}), "1 token types for 2 token ids"));
  EXPECT_TRUE(says(encode({}, {}), "no tokens"));
  EXPECT_TRUE(says(encode(std::vector<std::int32_t>(65, 1), {}), "65 tokens, but the context holds 64"));
  const auto images = [&](const Tensor& pixels) {
    return error_of([&] { vit.model.encode_images(pixels, vit.exec); });
  };
  EXPECT_EQ(images(Tensor({1, 3, 12, 12}, DType::f16)), "");
  EXPECT_TRUE(says(images(Tensor({1, 3, 12, 13}, DType::f32)), "[1, 3, 12, 13], but ViTForImageClassification reads"));
  EXPECT_TRUE(says(images(Tensor({3, 12, 12}, DType::f32)), "has shape [3, 12, 12]"));
  EXPECT_TRUE(says(images(Tensor({1, 3, 12, 12}, DType::u8)), "expected f32, f16 or bf16, found u8"));
  EXPECT_TRUE(says(images(Tensor({0, 3, 12, 12}, DType::f32)), "no image"));
  Tensor broken({1, 3, 12, 12}, DType::f32);
  broken.as<float>()[7] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(says(images(broken), "not finite"));
  EXPECT_TRUE(says(error_of([&] { vit.model.encode({}, {}, vit.exec); }), "reads images"));
  EXPECT_TRUE(says(error_of([&] { bert.model.encode_images(broken, bert.exec); }), "reads token ids"));
  EXPECT_TRUE(says(error_of([] { test::LoadedModel m(test::data("models/bert")); }), "BertModel is an encoder"));
}

TEST(EncoderModel, ManyImagesAreThoseOneByOne) {
  Loaded m(test::data("models/vit"));
  const auto golden = Checkpoint::open(test::data("models/vit/outputs.safetensors").string());
  const View& pixels = golden->at("pixel_values");
  Tensor many({11, 3, 12, 12}, DType::f32);
  for (std::int64_t i = 0; i < 11; ++i) {
    std::memcpy(many.as<float>().data() + i * 432, pixels.rows(i % 3, i % 3 + 1).data(), 432 * sizeof(float));
  }
  const std::vector<EncoderOutput> few = m.model.encode_images(pixels, m.exec);
  const std::vector<EncoderOutput> all = m.model.encode_images(many, m.exec);
  ASSERT_EQ(all.size(), 11u);
  for (std::size_t i = 0; i < 11; ++i) EXPECT_LT(relative_error(all[i].logits, few[i % 3].logits), 1e-6);
}

}  // namespace
}  // namespace nibble
