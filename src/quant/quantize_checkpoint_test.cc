#include "quant/quantize_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "quant/quanto/quantizer.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using quanto::QType;

quanto::Config config_of(QType qtype) {
  quanto::Config config;
  config.weights.qtype = qtype;
  return config;
}

struct Result {
  QuantizationPlan plan;
  QuantizationError error;
};

Result quantize(const Checkpoint& source, const fs::path& out, const quanto::Config& config, int threads = 2,
                const ModuleSelection& selection = {}, std::int64_t shard = std::int64_t{1} << 40) {
  ThreadPool pool(threads);
  quanto::Quantizer quantizer(config);
  Result result{plan_quantization(source, quantizer, selection, threads), {}};
  QuantizeOptions options;
  options.out = out;
  options.max_shard_bytes = shard;
  result.error = quantize_checkpoint(source, result.plan, quantizer, options, pool);
  return result;
}

/// A model of one tensor "fc.weight".
std::shared_ptr<const Checkpoint> model_of(const fs::path& folder, const Tensor& weight,
                                           const std::string& config = "{}") {
  CheckpointWriter writer(folder, {{"fc.weight", weight.dtype(), weight.shape()}});
  writer.write("fc.weight", weight.view().bytes());
  writer.add_file("config.json", config);
  writer.commit();
  return Checkpoint::open(folder.string());
}

Tensor numbers(const Shape& shape, DType dtype) {
  Tensor out(shape, dtype);
  std::uint32_t state = 12345;
  for (std::int64_t i = 0; i < out.count(); ++i) {
    state = state * 1664525U + 1013904223U;
    store_from_f32(dtype, out.data(), i, (static_cast<float>(state >> 8) / 8388608.0F - 1) * 0.1F);
  }
  return out;
}

TEST(QuantizeCheckpoint, TheDemoModelWithEveryTypeAndThreadCount) {
  const auto source = Checkpoint::open(test::source("models/demo").string());
  double previous = 0;
  for (const QType qtype : {QType::qint8, QType::qfloat8_e4m3fn, QType::qfloat8_e5m2, QType::qint4, QType::qint2}) {
    const test::TempDir temp;
    const Result one = quantize(*source, temp / "one", config_of(qtype), 1);
    const Result two = quantize(*source, temp / "two", config_of(qtype), 2);
    EXPECT_EQ(one.plan.modules.size(), 42U) << "seven linears in six layers, and no head";
    EXPECT_GT(one.error.relative(), previous) << "fewer bits, more error";
    previous = one.error.relative();
    EXPECT_EQ(one.error.squared_error, two.error.squared_error);
    EXPECT_EQ(test::read_text(temp / "one/model.safetensors"), test::read_text(temp / "two/model.safetensors"));
    for (const char* file : {"config.json", "tokenizer.json", "generation_config.json"}) {
      EXPECT_EQ(test::read_text(temp.path() / "one" / file), test::read_text(test::source("models/demo") / file));
    }
    EXPECT_EQ(one.plan.bytes_out, [&] {
      std::int64_t bytes = 0;
      const auto written = Checkpoint::open((temp / "one").string());
      for (const TensorEntry& entry : written->tensors()) bytes += static_cast<std::int64_t>(entry.view.size_bytes());
      return bytes;
    }());
  }
}

TEST(QuantizeCheckpoint, ShardsHoldTheSameTensors) {
  const auto source = Checkpoint::open(test::source("models/demo").string());
  const test::TempDir temp;
  quantize(*source, temp / "whole", config_of(QType::qint4));
  quantize(*source, temp / "shards", config_of(QType::qint4), 2, {}, 1 << 20);
  EXPECT_TRUE(fs::exists(temp / "shards/model.safetensors.index.json"));
  const auto whole = Checkpoint::open((temp / "whole").string()), shards = Checkpoint::open((temp / "shards").string());
  ASSERT_EQ(whole->tensors().size(), shards->tensors().size());
  for (const TensorEntry& entry : whole->tensors()) {
    const View& other = shards->at(entry.name);
    EXPECT_EQ(std::memcmp(entry.view.data(), other.data(), entry.view.size_bytes()), 0) << entry.name;
  }
}

TEST(QuantizeCheckpoint, AwkwardShapesAreReadBackAndCompared) {
  const std::vector<Shape> shapes{{1, 1},   {1, 40},   {1, 160},  {1, 256},     {3, 33},       {5, 129},
                                  {7, 200}, {17, 256}, {2, 1000}, {4, 3, 2, 2}, {6, 16, 4, 4}, {1, 3, 3, 3}};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const test::TempDir temp;
    std::vector<TensorPlan> plan;
    for (std::size_t i = 0; i < shapes.size(); ++i) plan.push_back({cat("layers.", i, ".weight"), dtype, shapes[i]});
    {
      CheckpointWriter writer(temp / "in", plan);
      for (const TensorPlan& tensor : plan) writer.write(tensor.name, numbers(tensor.shape, dtype).view().bytes());
      writer.commit();
    }
    const auto source = Checkpoint::open((temp / "in").string());
    for (const QType qtype : {QType::qint8, QType::qint4, QType::qint2, QType::qfloat8_e4m3fn, QType::qfloat8_e5m2,
                              QType::qfloat8_e4m3fnuz}) {
      SCOPED_TRACE(cat(name_of(dtype), " ", name_of(qtype)));
      const Result result = quantize(*source, temp / std::string(name_of(qtype)), config_of(qtype));
      EXPECT_EQ(result.plan.modules.size(), shapes.size());
      EXPECT_LT(result.error.relative(), qtype == QType::qint2 ? 0.45 : 0.12);
    }
  }
}

TEST(QuantizeCheckpoint, OptimizersZeroPointsAndGroups) {
  const test::TempDir temp;
  const auto source = model_of(temp / "in", numbers({8, 384}, DType::bf16));
  quanto::Config config = config_of(QType::qint4);
  const double max_error = quantize(*source, temp / "max", config).error.relative();
  config.weights.optimizer = quanto::Optimizer::hqq;
  EXPECT_LT(quantize(*source, temp / "hqq", config).error.relative(), 1.05 * max_error);
  config.weights.optimizer = quanto::Optimizer::max;
  config.weights.group_size = 32;
  const Result small = quantize(*source, temp / "small", config);
  EXPECT_LT(small.error.relative(), max_error);
  ASSERT_EQ(small.plan.notes.size(), 1U) << "the library would choose other groups";
  config.weights.zero_point = true;
  EXPECT_LT(quantize(*source, temp / "zero", config).error.relative(), 2 * max_error);
  config.weights.optimizer = quanto::Optimizer::absmax;
  EXPECT_THROW(quanto::Quantizer{config}, Error);
}

TEST(QuantizeCheckpoint, ValuesThatAreNotFiniteAreNamed) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const QType qtype : {QType::qint8, QType::qint4}) {
        const test::TempDir temp;
        Tensor weight = numbers({6, 256}, dtype);
        store_from_f32(dtype, weight.data(), 3 * 256 + 77, bad);
        const auto source = model_of(temp / "in", weight);
        try {
          quantize(*source, temp / "out", config_of(qtype));
          FAIL() << "accepted";
        } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::bad_input);
          EXPECT_NE(std::string(error.what()).find("fc.weight: row 3"), std::string::npos) << error.what();
        }
        EXPECT_FALSE(fs::exists(temp / "out/model.safetensors"));
      }
    }
  }
}

TEST(QuantizeCheckpoint, ATiedHeadGetsAWeightOfItsOwn) {
  const test::TempDir temp;
  const Tensor embedding = numbers({32, 64}, DType::bf16);
  {
    CheckpointWriter writer(temp / "in", {{"model.embed_tokens.weight", DType::bf16, {32, 64}}});
    writer.write("model.embed_tokens.weight", embedding.view().bytes());
    writer.add_file("config.json", "{\"vocab_size\": 32, \"tie_word_embeddings\": true}");
    writer.commit();
  }
  const auto source = Checkpoint::open((temp / "in").string());
  const Result result = quantize(*source, temp / "out", config_of(QType::qint8), 2, {.lm_head = true});
  EXPECT_TRUE(result.plan.unties);
  const auto written = Checkpoint::open((temp / "out").string());
  EXPECT_FALSE(written->config().find("tie_word_embeddings")->boolean("tied"));
  EXPECT_NE(written->find("lm_head.weight._data"), nullptr);
  EXPECT_NE(written->find("model.embed_tokens.weight"), nullptr);
}

TEST(QuantizeCheckpoint, RefusesWhatWouldLoseAModel) {
  const test::TempDir temp;
  const auto source = model_of(temp / "in", numbers({4, 64}, DType::f32));
  EXPECT_THROW(quantize(*source, temp / "in", config_of(QType::qint8)), Error) << "the source itself";
  quantize(*source, temp / "out", config_of(QType::qint8));
  EXPECT_THROW(quantize(*source, temp / "out", config_of(QType::qint8)), Error) << "a model is there";
  EXPECT_NO_THROW(check_output_folder(temp / "in", temp / "out", true));
  const auto quantized = Checkpoint::open((temp / "out").string());
  EXPECT_THROW(quantize(*quantized, temp / "again", config_of(QType::qint8)), Error) << "already quantized";
  test::write_text(temp / "file", "");
  EXPECT_THROW(check_output_folder(temp / "in", temp / "file", true), Error);
}

TEST(QuantizeCheckpoint, DamageAfterWritingIsFound) {
  const test::TempDir temp;
  const auto source = model_of(temp / "in", numbers({8, 256}, DType::f32));
  ThreadPool pool(1);
  for (const QType qtype : {QType::qint8, QType::qint4, QType::qfloat8_e4m3fn}) {
    const fs::path out = temp / std::string(name_of(qtype));
    quantize(*source, out, config_of(qtype));
    std::string file = test::read_text(out / "model.safetensors");
    const auto written = Checkpoint::open(out.string());
    const View& scale = written->at("fc.weight._scale");
    const std::size_t at = file.find(std::string(reinterpret_cast<const char*>(scale.data()), scale.size_bytes()));
    ASSERT_NE(at, std::string::npos);
    file[at + 3] = static_cast<char>(file[at + 3] ^ 1);  // a scale with another exponent
    test::write_text(out / "model.safetensors", file);
    quanto::Quantizer quantizer(config_of(qtype));
    quantizer.open_result(Checkpoint::open(out.string()));
    EXPECT_THROW(quantizer.verify("fc", *source->find("fc.weight"), pool), Error);
  }
}

}  // namespace
}  // namespace nibble
