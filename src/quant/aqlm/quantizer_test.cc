// What the AQLM quantizer stores is what the reader loads, with the config that Transformers wants.
#include "quant/aqlm/quantizer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"
#include "support/edited_checkpoint.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble::aqlm {
namespace {

using test::QuantMachine;
using C = test::EditedCheckpoint;

QuantizerConfig config_of(std::string_view shape, std::int64_t group = 8) {
  QuantizerConfig config;
  config.options.group = group;
  parse_shape(shape, config.options);
  config.options.effort = effort_of(Preset::fast);
  return config;
}

TEST(AqlmQuantizer, ShapesAreCodebooksTimesBits) {
  Options options;
  parse_shape("1x16", options);
  EXPECT_EQ(options.codebooks, 1);
  EXPECT_EQ(options.bits, 16);
  parse_shape("4X10", options);
  EXPECT_EQ(options.codebooks, 4);
  EXPECT_EQ(options.bits, 10);
  for (const char* wrong :
       {"", "2", "2x", "x8", "2x8x", "2*8", "0x8", "2x17", "-1x8", "2x 8", "99999999999999999999x8"}) {
    EXPECT_THROW(parse_shape(wrong, options), Error) << wrong;
  }
}

/// Every code from 0 to 2^N - 1 stored and read back, for N that fill their integer type and N that do not.
TEST(AqlmQuantizer, EveryCodeIsStoredAsTheReaderReadsIt) {
  for (const char* shape : {"2x8", "1x6", "1x12", "1x16"}) {
    const QuantizerConfig config = config_of(shape);
    const Options& o = config.options;
    const std::int64_t words = std::int64_t{1} << o.bits, cols = 64, groups = cols / 8, rows = words / groups;
    Solution solved;
    Rng rng(1);
    for (std::int64_t i = 0; i < rows * groups; ++i) {
      for (std::int64_t k = 0; k < o.codebooks; ++k) {
        solved.codes.push_back(static_cast<std::int32_t>(k == 0 ? i : words - 1 - i));
      }
    }
    for (std::int64_t i = 0; i < o.codebooks * words * 8; ++i) {
      solved.words.push_back(round_to(DType::f16, static_cast<float>(rng.normal())));
    }
    for (std::int64_t r = 0; r < rows; ++r)
      solved.scales.push_back(round_to(DType::f16, static_cast<float>(rng.uniform())));
    QuantMachine machine;
    SolvedModule module = pack("m", rows, cols, solved, o, machine.exec);
    Quantizer quantizer(config);
    const std::vector<TensorPlan> planned = quantizer.outputs("m", {rows, cols}, DType::f32);
    ASSERT_EQ(planned.size(), module.tensors.size());
    C c;
    c.config.set("quantization_config", *quantizer.quantization_config({}));
    for (std::size_t i = 0; i < planned.size(); ++i) {
      EXPECT_EQ(planned[i].name, module.tensors[i].name);
      EXPECT_EQ(planned[i].shape, module.tensors[i].tensor.shape());
      EXPECT_EQ(planned[i].dtype, module.tensors[i].tensor.dtype());
      c.tensors[planned[i].name] = module.tensors[i].tensor;
    }
    const test::TempDir dir;
    c.write(dir / "model");
    const WeightStore store(Checkpoint::open((dir / "model").string()));
    const std::vector<float> got = test::decoded(store.linear("m", machine.exec).weight, machine.exec);
    EXPECT_EQ(got, test::decoded(module.linear.weight, machine.exec)) << shape;
    for (const std::int64_t at : {std::int64_t{0}, rows * cols / 2, rows * cols - 1}) {
      float sum = 0;
      for (std::int64_t k = 0; k < o.codebooks; ++k) {
        const std::int64_t code = solved.codes[static_cast<std::size_t>(at / 8 * o.codebooks + k)];
        sum += solved.words[static_cast<std::size_t>((k * words + code) * 8 + at % 8)];
      }
      EXPECT_EQ(got[static_cast<std::size_t>(at)], sum * solved.scales[static_cast<std::size_t>(at / cols)]) << shape;
    }
    EXPECT_EQ(store.reader()->describe("m"), quantizer.describe("m", {rows, cols}, DType::f32));
  }
}

TEST(AqlmQuantizer, ConfigNamesWhatStaysInFloats) {
  const Quantizer quantizer(config_of("1x12", 16));
  SelectionResult selected;
  selected.kept = {"model.layers.0.mlp.up_proj"};
  const Json json = *quantizer.quantization_config(selected);
  EXPECT_EQ(json.dump(0),
            Json::parse(R"({"in_group_size": 16, "linear_weights_not_to_quantize": ["model.layers.0.mlp.up_proj.weight",
                "model.layers.0.mlp.up_proj", "lm_head.weight", "lm_head"], "nbits_per_codebook": 12,
                "num_codebooks": 1, "out_group_size": 1, "quant_method": "aqlm"})",
                        "expected")
                .dump(0));
  const Config read = parse_config(json, "config.json");
  EXPECT_EQ(read.nbits_per_codebook, 12);
  EXPECT_EQ(read.in_group_size, 16);
}

TEST(AqlmQuantizer, SaysWhatIsWastefulAndRefusesWhatDoesNotFit) {
  const Quantizer small(config_of("2x8")), large(config_of("1x16"));
  EXPECT_EQ(small.note("m", {2048, 2048}, DType::f32), "");
  EXPECT_NE(large.note("m", {256, 256}, DType::f32).find("more words than it has groups"), std::string::npos);
  EXPECT_EQ(large.note("m", {4096, 4096}, DType::f32), "");
  EXPECT_DOUBLE_EQ(small.solve_work(512, 256), 2 * small.solve_work(256, 256));
  EXPECT_GT(small.solve_work(256, 512), 2 * small.solve_work(256, 256)) << "products grow with the square";
  EXPECT_GT(large.solve_work(256, 256), small.solve_work(256, 256));
  EXPECT_THROW(small.outputs("m", {16, 60}, DType::f32), Error);
  QuantMachine machine;
  Quantizer quantizer(config_of("1x4"));
  const std::vector<float> huge(4 * 64, 1e6F), gram(64 * 64, 1.0F);
  try {
    quantizer.solve("model.layers.3.x", huge, 4, 64, gram, machine.exec);
    ADD_FAILURE() << "scales beyond f16";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("model.layers.3.x: "), 0U) << error.what();
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
  }
}

}  // namespace
}  // namespace nibble::aqlm
