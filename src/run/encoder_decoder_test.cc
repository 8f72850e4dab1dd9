// T5 models of tests/data/models against Transformers (tools/make_encoder_goldens.py): logits however they are
// computed, generation, a model that bitsandbytes quantized, and what is refused.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "run/generate.h"
#include "run/perplexity.h"
#include "support/edited_checkpoint.h"
#include "support/loaded_model.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::Goldens;
using test::LoadedModel;
using test::relative_error;
using test::says;

constexpr double kF32Bound = 1e-4;
constexpr double kBf16Ratio = 1.5;

struct Case {
  explicit Case(const std::string& name)
      : folder(test::data("models") / name), golden(folder / "outputs.safetensors") {}
  fs::path folder;
  Goldens golden;
};

std::vector<float> one_shot(LoadedModel& m, const std::vector<std::int32_t>& input,
                            const std::vector<std::int32_t>& ids) {
  std::vector<float> all;
  for_each_logits(*m.model, input, ids, m.exec, [&](std::int64_t, std::int64_t rows, const float* logits) {
    all.insert(all.end(), logits, logits + rows * m->info().vocab_size);
  });
  return all;
}

class EncoderDecoder : public testing::TestWithParam<const char*> {};

TEST_P(EncoderDecoder, F32OnRefAndCpu) {
  const Case c(GetParam());
  for (const Target target : {Target::ref, Target::cpu}) {
    LoadedModel m(c.folder, {.target = target, .compute = DType::f32});
    for (int i = 0; i < 2; ++i) {
      EXPECT_LT(
          relative_error(one_shot(m, c.golden.ids(i), c.golden.integers("decoder_ids", i)), c.golden.logits("f32", i)),
          kF32Bound)
          << "sequence " << i;
    }
  }
}

TEST_P(EncoderDecoder, TokenByTokenInABatchAndInChunks) {
  const Case c(GetParam());
  LoadedModel m(c.folder, {.prefill_chunk = 7});
  const std::int64_t vocab = m->info().vocab_size;
  std::vector<std::vector<std::int32_t>> ids;
  std::vector<std::int64_t> sequences;
  std::vector<std::vector<float>> got(2);
  for (int i = 0; i < 2; ++i) {
    ids.push_back(c.golden.integers("decoder_ids", i));
    EXPECT_LT(relative_error(one_shot(m, c.golden.ids(i), ids.back()), c.golden.logits("f32", i)), kF32Bound);
    sequences.push_back(m->open_sequence());
    m->encode(sequences.back(), c.golden.ids(i), m.exec);
  }
  std::vector<float> logits;
  for (std::size_t step = 0; step < ids[0].size(); ++step) {
    std::vector<BatchItem> items;
    for (std::size_t i = 0; i < 2; ++i) {
      if (step < ids[i].size()) items.push_back({sequences[i], {&ids[i][step], 1}, false, 0});
    }
    m->forward(items, logits, m.exec);
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto row = logits.begin() + static_cast<std::int64_t>(i) * vocab;
      got[i].insert(got[i].end(), row, row + vocab);
    }
  }
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_LT(relative_error(got[i], c.golden.logits("f32", static_cast<int>(i))), kF32Bound);
  }
}

TEST_P(EncoderDecoder, GreedyTokensAreThoseOfTransformers) {
  const Case c(GetParam());
  LoadedModel m(c.folder);
  GenerateOptions options = default_generate_options(*Checkpoint::open(c.folder.string()));
  EXPECT_EQ(options.decoder_start, 0);
  options.max_new_tokens = 12;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(generate(*m.model, nullptr, c.golden.ids(i), options, m.exec).ids, c.golden.integers("generated", i));
  }
}

TEST_P(EncoderDecoder, ThreadsDoNotChangeABit) {
  const Case c(GetParam());
  LoadedModel one(c.folder, {.compute = DType::bf16, .threads = 1}),
      three(c.folder, {.compute = DType::bf16, .threads = 3});
  const std::vector<std::int32_t> ids = c.golden.integers("decoder_ids", 0);
  EXPECT_EQ(one_shot(one, c.golden.ids(0), ids), one_shot(three, c.golden.ids(0), ids));
}

// flan-t5-nf4: the linears but lm_head as bitsandbytes quantized them, its own logits.
INSTANTIATE_TEST_SUITE_P(Models, EncoderDecoder, testing::Values("t5", "flan-t5", "flan-t5-nf4"), [](const auto& info) {
  std::string name = info.param;
  std::erase(name, '-');
  return name;
});

TEST(EncoderDecoderModel, Bf16IsAsCloseToF32AsTransformersIs) {
  for (const char* name : {"t5", "flan-t5"}) {
    const Case c(name);
    LoadedModel m(c.folder, {.compute = DType::bf16});
    const std::vector<float> exact = c.golden.logits("f32", 0);
    const double ours = relative_error(one_shot(m, c.golden.ids(0), c.golden.integers("decoder_ids", 0)), exact);
    EXPECT_LT(ours, kBf16Ratio * relative_error(c.golden.logits("bf16", 0), exact)) << name;
    EXPECT_GT(ours, 0);
  }
}

TEST(EncoderDecoderModel, ForksShareTheInput) {
  const Case c("t5");
  LoadedModel m(c.folder);
  const std::vector<std::int32_t> ids = c.golden.integers("decoder_ids", 0);
  const std::int64_t a = m->open_sequence();
  m->encode(a, c.golden.ids(0), m.exec);
  const auto step = [&](std::int64_t sequence, std::size_t from, std::size_t count) {
    const BatchItem item{sequence, std::span(ids).subspan(from, count), false, 0};
    std::vector<float> logits;
    m->forward({&item, 1}, logits, m.exec);
    return logits;
  };
  step(a, 0, 20);
  const std::int64_t b = m->fork_sequence(a, 12);
  const std::vector<float> expected = step(a, 20, 1);
  m->close_sequence(a);
  EXPECT_LT(relative_error(step(b, 12, 9), expected), kF32Bound);
  m->truncate_sequence(b, 7);
  EXPECT_LT(relative_error(step(b, 7, 14), expected), kF32Bound);
}

TEST(EncoderDecoderModel, RefusesWhatItCannotCompute) {
  const Case c("t5");
  LoadedModel m(c.folder);
  const std::vector<std::int32_t> good{3, 5}, outside{3, 96};
  EXPECT_TRUE(says(error_of([&] { m.one_shot(good); }), "T5ForConditionalGeneration is an encoder-decoder"));
  EXPECT_EQ(error_of([&] { m->encode(m->open_sequence(), outside, m.exec); }),
            "token id 96 is outside the model's vocabulary of 96");
  EXPECT_TRUE(says(error_of([&] { m->encode(m->open_sequence(), {}, m.exec); }), "no tokens"));
  EXPECT_TRUE(says(error_of([&] { one_shot(m, good, outside); }), "token id 96"));
  const EvalModel eval{*m.model, m.exec};
  EXPECT_TRUE(
      says(error_of([&] { measure_perplexity(eval, nullptr, {}); }), "perplexity measures models that continue"));
  GenerateOptions options;
  options.max_new_tokens = 2;
  EXPECT_TRUE(
      says(error_of([&] { generate(*m.model, nullptr, good, options, m.exec); }), "needs decoder_start_token_id"));
  options.decoder_start = 96;
  EXPECT_TRUE(says(error_of([&] { generate(*m.model, nullptr, good, options, m.exec); }),
                   "decoder_start_token_id 96 is outside the model's vocabulary of 96"));
  LoadedModel decoder(test::data("models/llama"));
  EXPECT_THROW(decoder->encode(decoder->open_sequence(), good, decoder.exec), Error);
}

/// The message with which the model of `name` is refused after `change`.
std::string refusal(const std::string& name, const std::function<void(test::EditedCheckpoint&)>& change) {
  test::EditedCheckpoint edited(*Checkpoint::open((test::data("models") / name / "model.safetensors").string()));
  change(edited);
  const test::TempDir dir;
  edited.write(dir / "m");
  return error_of([&] { LoadedModel model(dir / "m"); });
}

TEST(EncoderDecoderModel, NamesTheFieldOrTensor) {
  const auto with = [&](const char* field, Json value) {
    return refusal("t5", [&](test::EditedCheckpoint& m) { m.config.set(field, std::move(value)); });
  };
  EXPECT_EQ(with("num_heads", 4), "");
  for (const std::int64_t buckets : {std::int64_t{0}, std::int64_t{-32}, std::int64_t{33}, std::int64_t{1} << 40}) {
    EXPECT_TRUE(says(with("relative_attention_num_buckets", buckets),
                     "config.json: field relative_attention_num_buckets is " + std::to_string(buckets)));
  }
  EXPECT_TRUE(says(with("relative_attention_num_buckets", 64),
                   "SelfAttention.relative_attention_bias.weight has shape [32, 4], but config.json asks for [64, 4]"));
  EXPECT_TRUE(says(with("relative_attention_max_distance", 16), "field relative_attention_max_distance is 16"));
  EXPECT_TRUE(says(with("feed_forward_proj", "plain-gelu"), "field feed_forward_proj"));
  EXPECT_TRUE(says(with("feed_forward_proj", "gated-"), "field feed_forward_proj: unknown activation"));
  EXPECT_TRUE(says(with("feed_forward_proj", "gated-gelu"), "wi_0.weight is missing"));
  EXPECT_TRUE(says(with("d_kv", std::int64_t{1} << 50), "field d_kv"));
  EXPECT_TRUE(says(with("d_model", 47), "has shape"));
  EXPECT_TRUE(says(with("num_layers", 3), "tensor encoder.block.2.layer.0.layer_norm.weight is missing"));
  EXPECT_TRUE(says(with("num_decoder_layers", 3), "tensor decoder.block.2.layer.0.layer_norm.weight is missing"));
  EXPECT_TRUE(says(with("tie_word_embeddings", false), "lm_head.weight is missing"));
  EXPECT_TRUE(says(with("dtype", "int3"), "unknown float type"));
  EXPECT_TRUE(says(refusal("t5",
                           [](auto& m) {
                             m.reshape("shared.weight", DType::i32, {96, 48});
                           }),
                   "tensor shared.weight: expected f32, f16 or bf16, found i32"));
  EXPECT_TRUE(says(refusal("t5", [](auto& m) { m.tensors.erase("encoder.block.0.layer.0.layer_norm.weight"); }),
                   "this is no T5ForConditionalGeneration checkpoint"));
}

TEST(EncoderDecoderModel, TheTableMayHaveAnotherName) {
  EXPECT_EQ(refusal("t5",
                    [](auto& m) {
                      m.tensors["encoder.embed_tokens.weight"] = m.tensors.at("shared.weight");
                      m.tensors.erase("shared.weight");
                    }),
            "");
}

TEST(EncoderDecoderModel, CountsParametersOnce) {
  // Two and two layers of d_model 48, four heads of 16, d_ff 80, tied embeddings of 96, two bias tables of [32, 4].
  const std::int64_t attention = 4 * 48 * 64, mlp = 2 * 48 * 80;
  const std::int64_t encoder = attention + mlp + 2 * 48, decoder = 2 * attention + mlp + 3 * 48;
  EXPECT_EQ(LoadedModel(test::data("models/t5"))->info().parameters,
            96 * 48 + 2 * encoder + 2 * decoder + 2 * 48 + 2 * 32 * 4);
}

}  // namespace
}  // namespace nibble
