// from_pretrained's options: configs for quantized checkpoints, device maps, memory bounds, dtypes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "nibble/nibble.h"
#include "support/edited_checkpoint.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

const std::string kAwq = test::data("awq/gm_gemm_g128").string();
const std::string kGptq = test::data("gptq/ag_b3_g64_sym_desc").string();
const std::string kNf4 = test::data("bnb/ckpt/bnb_nf4_bf16").string();
const std::string kLlama = test::data("models/llama").string();
const TokenIds kIds{1, 5, 17};

PreTrainedModel load(const std::string& model, PretrainedOptions options = {}) {
  options.threads = 1;
  return AutoModelForCausalLM::from_pretrained(model, options);
}

/// The message of the Error(bad_input) that `f` throws; empty when it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
    return error.what();
  }
  return {};
}

std::string load_error(const std::string& model, const PretrainedOptions& options) {
  return error_of([&] { load(model, options); });
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Json saved_config(const PreTrainedModel& model) {
  const test::TempDir dir;
  model.save_pretrained((dir / "saved").string());
  return *Json::read(dir / "saved/config.json").find("quantization_config");
}

AwqConfig fused() {
  return {.fuse_max_seq_len = 512,
          .modules_to_fuse = FusedModules{.attention = {"q_proj", "k_proj", "v_proj", "o_proj"},
                                          .layernorm = {"input_layernorm", "post_attention_layernorm", "norm"},
                                          .mlp = {"gate_proj", "up_proj", "down_proj"},
                                          .num_attention_heads = 8,
                                          .num_key_value_heads = 4,
                                          .hidden_size = 256}};
}

TEST(Config, FusingMapThatFitsChangesNothing) {
  PreTrainedModel plain = load(kAwq);
  PreTrainedModel model = load(kAwq, {.quantization_config = fused()});
  EXPECT_EQ(model.logits(kIds), plain.logits(kIds));
  const Json config = saved_config(model);
  EXPECT_TRUE(config.find("do_fuse")->boolean("do_fuse"));
  EXPECT_EQ(config.find("fuse_max_seq_len")->integer("fuse_max_seq_len"), 512);
}

TEST(Config, FusingMapThatDoesNotFitIsRefused) {
  const auto refused = [](void (*edit)(AwqConfig&)) {
    AwqConfig config = fused();
    edit(config);
    return load_error(kAwq, {.quantization_config = config});
  };
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.modules_to_fuse->layernorm = {"ln1"}; }), "no module \"ln1\""));
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.modules_to_fuse->num_attention_heads = 56; }),
                       "num_attention_heads is 56, but the model's is 8"));
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.modules_to_fuse->num_key_value_heads = 8; }),
                       "num_key_value_heads is 8, but the model's is 4"));
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.modules_to_fuse->hidden_size = 7168; }), "hidden_size is 7168"));
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.modules_to_fuse->mlp = {"up_proj"}; }), "mlp: 1"));
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.fuse_max_seq_len.reset(); }), "needs fuse_max_seq_len"));
  EXPECT_TRUE(contains(refused([](AwqConfig& c) { c.modules_to_fuse->use_alibi = true; }), "use_alibi"));
}

TEST(Config, ExllamaIsAcceptedAndNotesWhatIsIgnored) {
  PreTrainedModel awq = load(kAwq, {.quantization_config = AwqConfig{.group_size = 64, .version = "exllama"}});
  EXPECT_EQ(saved_config(awq).find("version")->string("version"), "exllama");
  ASSERT_EQ(awq.notes().size(), 1U);
  EXPECT_EQ(awq.notes()[0], "AwqConfig.group_size: 64 is ignored; the checkpoint is quantized already");
}

TEST(Config, GptqSwitchesReachTheSavedFiles) {
  const PreTrainedModel model = load(
      kGptq, {.quantization_config = GPTQConfig{.use_exllama = false, .exllama_config = ExllamaConfig{.version = 2}}});
  ASSERT_EQ(model.notes().size(), 0U);
  const test::TempDir dir;
  model.save_pretrained((dir / "saved").string());
  const Json config = *Json::read(dir / "saved/config.json").find("quantization_config");
  EXPECT_FALSE(config.find("use_exllama")->boolean("use_exllama"));
  EXPECT_EQ(config.find("exllama_config")->find("version")->integer("version"), 2);
  EXPECT_EQ(config.find("bits")->integer("bits"), 3) << "the rest is the file's";
  EXPECT_EQ(load((dir / "saved").string()).logits(kIds), load(kGptq).logits(kIds));
}

TEST(Config, AKeyThatTwoFilesHaveIsChangedInBoth) {
  const test::TempDir dir;
  fs::copy(kGptq, dir / "model");
  Json config = Json::read(dir / "model/quantize_config.json");
  config.set("use_exllama", true);
  fs::remove(dir / "model/quantize_config.json");
  test::write_text(dir / "model/quantize_config.json", config.dump(2));
  const PreTrainedModel model =
      load((dir / "model").string(), {.quantization_config = GPTQConfig{.use_exllama = false}});
  model.save_pretrained((dir / "saved").string());
  EXPECT_FALSE(Json::read(dir / "saved/quantize_config.json").find("use_exllama")->boolean("use_exllama"));
  load((dir / "saved").string());
}

TEST(Config, BitsAndBytesLoadingAttributes) {
  const PreTrainedModel model = load(
      kNf4, {.quantization_config = BitsAndBytesConfig{.llm_int8_threshold = 10, .bnb_4bit_compute_dtype = "float32"}});
  const Json config = saved_config(model);
  EXPECT_EQ(config.find("llm_int8_threshold")->number("threshold"), 10);
  EXPECT_EQ(config.find("bnb_4bit_compute_dtype")->string("compute"), "float32");
}

TEST(Config, TheComputeDtypeIsTheArithmetic) {
  const auto logits = [](const char* compute) {
    return load(kNf4, {.quantization_config = BitsAndBytesConfig{.bnb_4bit_compute_dtype = compute}}).logits(kIds);
  };
  EXPECT_EQ(logits("float32"), load(kNf4, {.torch_dtype = "float32"}).logits(kIds));
  EXPECT_NE(logits("float32"), logits("bfloat16"));
}

TEST(Config, ContradictionsAreRefused) {
  EXPECT_TRUE(contains(load_error(kGptq, {.quantization_config = AwqConfig{}}),
                       "quantized with gptq, but the config is of class AwqConfig"));
  EXPECT_TRUE(contains(load_error(kNf4, {.load_in_8bit = true}), "4 bits, but load_in_8bit"));
  EXPECT_TRUE(contains(load_error(kNf4, {.load_in_8bit = true, .load_in_4bit = true}), "one at a time"));
  EXPECT_TRUE(contains(load_error(kNf4, {.quantization_config = BitsAndBytesConfig{}, .load_in_4bit = true}),
                       "beside quantization_config"));
  EXPECT_TRUE(contains(load_error(kLlama, {.quantization_config = AwqConfig{}}), "is not quantized"));
  EXPECT_TRUE(contains(load_error(kLlama, {.quantization_config = AqlmConfig{}}), "is not quantized"));
}

TEST(Config, FieldsAreChecked) {
  EXPECT_TRUE(contains(load_error(kGptq, {.quantization_config = GPTQConfig{.bits = 5}}), "GPTQConfig: bits: 5"));
  EXPECT_TRUE(contains(load_error(kGptq, {.quantization_config = GPTQConfig{.group_size = 0}}), "group_size: 0"));
  EXPECT_TRUE(contains(load_error(kGptq, {.quantization_config = GPTQConfig{.damp_percent = 1}}), "damp_percent: 1"));
  EXPECT_TRUE(
      contains(load_error(kGptq, {.quantization_config = GPTQConfig{.exllama_config = ExllamaConfig{.version = 3}}}),
               "exllama_config: version: 3"));
  EXPECT_TRUE(contains(load_error(kAwq, {.quantization_config = AwqConfig{.bits = 3}}), "AwqConfig: bits: 3"));
  EXPECT_TRUE(contains(load_error(kAwq, {.quantization_config = AwqConfig{.version = "warp"}}), "version: warp"));
  EXPECT_TRUE(contains(load_error(kNf4, {.quantization_config = BitsAndBytesConfig{.llm_int8_threshold = -1}}),
                       "llm_int8_threshold: -1"));
  EXPECT_TRUE(contains(load_error(kNf4, {.quantization_config = BitsAndBytesConfig{.bnb_4bit_compute_dtype = "int8"}}),
                       "bnb_4bit_compute_dtype: int8"));
}

TEST(Quantize, BitsAndBytesWhileLoading) {
  PreTrainedModel plain = load(kLlama), eight = load(kLlama, {.load_in_8bit = true});
  EXPECT_EQ(eight.dtype_of("model.layers.0.mlp.up_proj.weight"), "int8");
  EXPECT_NE(eight.dtype_of("lm_head.weight"), "int8");
  const PreTrainedModel four =
      load(kLlama, {.quantization_config = BitsAndBytesConfig{.load_in_4bit = true, .bnb_4bit_quant_type = "nf4"}});
  EXPECT_EQ(four.dtype_of("model.layers.0.mlp.up_proj.weight"), "uint8");
  EXPECT_LT(four.get_memory_footprint(), eight.get_memory_footprint());
  EXPECT_LT(eight.get_memory_footprint(), plain.get_memory_footprint());
  const test::TempDir dir;
  eight.save_pretrained((dir / "saved").string());
  EXPECT_EQ(load((dir / "saved").string()).logits(kIds), eight.logits(kIds));
}

TEST(Quantize, AConfigOfInt8FieldsAloneMeansEightBits) {
  const PreTrainedModel model =
      load(kLlama, {.quantization_config = BitsAndBytesConfig{.llm_int8_skip_modules = {{"up_proj"}}}});
  EXPECT_EQ(model.dtype_of("model.layers.0.mlp.down_proj.weight"), "int8");
  EXPECT_EQ(model.dtype_of("lm_head.weight"), "int8") << "an explicit list replaces the default";
  EXPECT_NE(model.dtype_of("model.layers.0.mlp.up_proj.weight"), "int8");
  EXPECT_EQ(model.notes().size(), 1U);
}

TEST(Quantize, OffloadedModulesStayInFloats) {
  const DeviceMap map{{"", 0}, {"model.layers.1", "cpu"}};
  EXPECT_TRUE(contains(load_error(kLlama, {.device_map = map, .load_in_8bit = true}),
                       "goes to the cpu, where it stays in floats: set llm_int8_enable_fp32_cpu_offload"));
  const PreTrainedModel model = load(
      kLlama, {.device_map = map, .quantization_config = BitsAndBytesConfig{.llm_int8_enable_fp32_cpu_offload = true}});
  EXPECT_EQ(model.dtype_of("model.layers.0.mlp.up_proj.weight"), "int8");
  EXPECT_NE(model.dtype_of("model.layers.1.mlp.up_proj.weight"), "int8");
}

TEST(Quantize, GptqNeedsADataset) {
  EXPECT_TRUE(contains(load_error(kLlama, {.quantization_config = GPTQConfig{}}), "needs a dataset"));
  EXPECT_TRUE(contains(load_error(kLlama, {.quantization_config = GPTQConfig{.block_name_to_quantize = "h"}}),
                       "block_name_to_quantize: the model has no module h"));
}

/// A file of token ids for the tiny models.
std::string some_ids(const test::TempDir& dir) {
  const fs::path file = dir / "ids.json";
  test::write_text(file, "{\"ids\": [[1, 17, 30, 5, 44, 23, 9, 12, 40, 2, 8], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]]}");
  return file.string();
}

/// Saved and loaded again it is the same model; gives quantization_config as it was saved.
Json survives_saving(PreTrainedModel& model) {
  const test::TempDir dir;
  model.save_pretrained((dir / "saved").string());
  EXPECT_EQ(load((dir / "saved").string()).logits(kIds), model.logits(kIds));
  return *Json::read(dir / "saved/config.json").find("quantization_config");
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += std::pow(static_cast<double>(a[i] - b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(squares / norm);
}

TEST(Quantize, AwqWhileLoading) {
  const test::TempDir dir;
  AwqConfig config{.group_size = -1, .modules_to_not_convert = {{"down_proj"}}, .dataset = some_ids(dir)};
  PreTrainedModel plain = load(kLlama), model = load(kLlama, {.quantization_config = config});
  ASSERT_EQ(model.notes().size(), 1U);
  EXPECT_TRUE(contains(model.notes().front(), "AwqConfig: the dataset has 22 tokens: few"));
  EXPECT_EQ(model.dtype_of("model.layers.1.self_attn.o_proj.qweight"), "int32");
  EXPECT_EQ(model.dtype_of("model.layers.1.mlp.down_proj.weight"), "bfloat16");
  EXPECT_LT(model.get_memory_footprint(), plain.get_memory_footprint());
  EXPECT_LT(distance(model.logits(kIds), plain.logits(kIds)), 0.4);
  const Json saved = survives_saving(model);
  EXPECT_EQ(saved.find("quant_method")->string(""), "awq");
  EXPECT_EQ(saved.find("version")->string(""), "gemm");
  EXPECT_TRUE(contains(saved.find("modules_to_not_convert")->dump(), "mlp.down_proj"));
  config.version = "exllama";
  EXPECT_EQ(load(kLlama, {.quantization_config = config}).logits(kIds), model.logits(kIds));
}

TEST(Quantize, AwqFoldsBiasesActivationsAndRouters) {
  const test::TempDir dir;
  const AwqConfig config{.group_size = -1, .dataset = some_ids(dir)};
  for (const char* name : {"bloom", "mixtral-v4-window"}) {
    const std::string folder = test::data(std::string("models/") + name).string();
    PreTrainedModel plain = load(folder), model = load(folder, {.quantization_config = config});
    EXPECT_LT(distance(model.logits(kIds), plain.logits(kIds)), 0.3) << name;
    survives_saving(model);
  }
}

TEST(Quantize, AqlmWhileLoading) {
  const test::TempDir dir;
  const AqlmConfig config{.num_codebooks = 2,
                          .nbits_per_codebook = 6,
                          .linear_weights_not_to_quantize = {{"model.layers.0.mlp.up_proj.weight"}},
                          .dataset = some_ids(dir),
                          .preset = "fast"};
  PreTrainedModel plain = load(kLlama), model = load(kLlama, {.quantization_config = config});
  EXPECT_TRUE(contains(model.notes().front(), "AqlmConfig: the dataset has 22 tokens: few"));
  EXPECT_EQ(model.dtype_of("model.layers.1.mlp.up_proj.codes"), "int8");
  EXPECT_EQ(model.dtype_of("model.layers.0.mlp.up_proj.weight"), "bfloat16");
  EXPECT_LT(distance(model.logits(kIds), plain.logits(kIds)), 0.7);
  const Json saved = survives_saving(model);
  EXPECT_EQ(saved.find("num_codebooks")->integer(""), 2);
  EXPECT_EQ(saved.find("nbits_per_codebook")->integer(""), 6);
}

TEST(Quantize, GivesTheTensorsThatTheCommandWrites) {
  const test::TempDir dir;
  const std::string ids = some_ids(dir);
  const auto compare = [&](const QuantizationConfig& config, const std::string& flags) {
    const std::string method = flags.substr(0, flags.find(' '));
    load(kLlama, {.quantization_config = config}).save_pretrained((dir / ("api-" + method)).string());
    const test::Ran ran =
        test::run_command("'" + test::nibble_binary().string() + "' quantize '" + kLlama + "' -o '" +
                          (dir / method).string() + "' --no-check-kl --dataset '" + ids + "' --method " + flags);
    ASSERT_EQ(ran.code, 0) << ran.err;
    const auto written = Checkpoint::open((dir / method).string());
    const auto saved = Checkpoint::open((dir / ("api-" + method)).string());
    EXPECT_EQ(saved->tensors().size(), written->tensors().size());
    for (const TensorEntry& entry : written->tensors()) {
      EXPECT_TRUE(std::ranges::equal(saved->at(entry.name).bytes(), entry.view.bytes())) << entry.name;
    }
  };
  compare(AwqConfig{.group_size = -1, .modules_to_not_convert = {{"down_proj"}}, .dataset = ids},
          "awq --group-size -1 --exclude '*.down_proj'");
  compare(AqlmConfig{.num_codebooks = 2, .nbits_per_codebook = 6, .dataset = ids, .preset = "fast"},
          "aqlm --aqlm 2x6 --preset fast");
}

TEST(Quantize, AllThreeTakeTextsAndDataSetsByName) {
  const std::string demo = test::source("models/demo").string();
  const auto texts = std::vector<std::string>{"Weights are rounded so that the error of the outputs is least."};
  const std::vector<std::string> most{"gate_proj", "up_proj", "down_proj", "o_proj", "q_proj", "k_proj"};
  const auto takes = [&](const QuantizationConfig& config, const char* tensor) {
    EXPECT_NE(load(demo, {.quantization_config = config}).dtype_of(tensor), "") << tensor;
  };
  takes(AwqConfig{.modules_to_not_convert = most, .dataset = texts}, "model.layers.0.self_attn.v_proj.qweight");
  takes(AqlmConfig{.nbits_per_codebook = 8,
                   .linear_weights_not_to_quantize = most,
                   .dataset = "builtin",
                   .model_seqlen = 8,
                   .preset = "fast"},
        "model.layers.0.self_attn.v_proj.codes");
  takes(GPTQConfig{.dataset = texts, .modules_in_block_to_quantize = {{{"self_attn.v_proj"}}}},
        "model.layers.0.self_attn.v_proj.qweight");
}

TEST(Quantize, WhatAConfigCannotQuantizeIsRefused) {
  const test::TempDir dir;
  const std::string ids = some_ids(dir);
  const auto refused = [&](const QuantizationConfig& config, const char* why) {
    const std::string message = load_error(kLlama, {.quantization_config = config});
    EXPECT_TRUE(contains(message, why)) << message;
  };
  refused(AwqConfig{}, "AwqConfig needs a dataset");
  refused(AqlmConfig{}, "AqlmConfig needs a dataset");
  refused(AwqConfig{.zero_point = false, .dataset = ids}, "AwqConfig: zero_point");
  refused(AwqConfig{.group_size = 4, .dataset = ids}, "AwqConfig: group_size: 4");
  refused(AwqConfig{.dataset = ids}, "groups of 128 do not divide its");
  refused(AwqConfig{.dataset = "builtin"}, "no tokenizer here");
  refused(AwqConfig{.model_seqlen = 0}, "AwqConfig: model_seqlen: 0");
  refused(AqlmConfig{.out_group_size = 2, .dataset = ids}, "AqlmConfig: out_group_size: 2");
  refused(AqlmConfig{.nbits_per_codebook = 17, .dataset = ids}, "17");
  refused(AqlmConfig{.preset = "slow"}, "AqlmConfig: preset: slow");
}

TEST(DeviceMap, NamesAreThoseOfTheModel) {
  const DeviceMap good{{"model.embed_tokens", 0}, {"model.layers", 0}, {"model.norm", 0}, {"lm_head", "cpu"}};
  EXPECT_EQ(load(kLlama, {.device_map = good}).logits(kIds), load(kLlama).logits(kIds));
  EXPECT_TRUE(contains(load_error(kLlama, {.device_map = {{"", 0}, {"transformer.h", 0}}}), "no module transformer.h"));
  EXPECT_TRUE(contains(load_error(kLlama, {.device_map = {{"model.layers", 0}, {"lm_head", 0}, {"model.norm", 0}}}),
                       "no entry gives a device to model.embed_tokens"));
  EXPECT_TRUE(contains(load_error(kLlama, {.device_map = {{"", "cuda:0"}}}), "no device cuda:0"));
  EXPECT_TRUE(contains(load_error(kLlama, {.device_map = "cuda:0"}), "no device cuda:0"));
  load(kLlama, {.device_map = 0});
  load(kLlama, {.device_map = {{"", 0}}});
}

TEST(DeviceMap, PrefixesOfBaseModelsAreFound) {
  const std::string bare = test::data("models/opt-bare").string();
  load(bare, {.device_map = {{"model.decoder.embed_tokens", 0},
                             {"decoder.embed_positions", 0},
                             {"model.decoder.layers", 0},
                             {"lm_head", "cpu"}}});
  EXPECT_TRUE(contains(load_error(bare, {.device_map = {{"model.decoder.embed_tokens", 0}, {"lm_head", "cpu"}}}),
                       "no entry gives a device to model.decoder.embed_positions"));
  load(bare, {.device_map = {{"model", 0}, {"lm_head", 0}}});
}

TEST(Device, ToMovesNothing) {
  PreTrainedModel model = load(kLlama).to(0);
  model.to("cpu").to(0);
  EXPECT_EQ(model.device(), "cpu");
  EXPECT_TRUE(contains(error_of([&] { model.to("cuda"); }), "no device cuda"));
  EXPECT_TRUE(contains(error_of([&] { model.to("ref"); }), "is on cpu"));
}

TEST(MaxMemory, BoundsWeightsAndCache) {
  const std::int64_t weights = load(kLlama).get_memory_footprint();
  const auto with = [&](std::int64_t bytes) {
    return load(kLlama, {.max_memory = {{0, std::to_string(bytes)}, {"cpu", "1"}}});
  };
  EXPECT_TRUE(contains(error_of([&] { with(weights - 2); }), "the weights take " + std::to_string(weights)));
  PreTrainedModel tight = with(weights);
  EXPECT_TRUE(contains(error_of([&] { tight.generate(kIds, {.max_new_tokens = 5}); }), "the KV cache of 8 positions"));
  EXPECT_TRUE(contains(error_of([&] { tight.logits(kIds); }), "the KV cache of 3 positions"));
  with(weights + (1 << 20)).generate(kIds, {.max_new_tokens = 5});
  EXPECT_TRUE(contains(load_error(kLlama, {.max_memory = {{"cpu", "much"}}}), "max_memory: \"much\" is not a size"));
  EXPECT_TRUE(contains(load_error(kLlama, {.max_memory = {{"gpu", "1GB"}}}), "max_memory: there is no device gpu"));
}

TEST(TorchDtype, IsThatOfTheOtherModules) {
  const PreTrainedModel stored = load(kAwq);
  EXPECT_EQ(stored.dtype_of("model.norm.weight"), "float16");
  const PreTrainedModel wide = load(kAwq, {.torch_dtype = "float32"});
  EXPECT_EQ(wide.dtype_of("model.norm.weight"), "float32");
  EXPECT_EQ(wide.dtype_of("model.layers.-1.post_attention_layernorm.weight"), "float32");
  EXPECT_EQ(wide.dtype_of("model.layers.0.self_attn.q_proj.qweight"), "int32");
  EXPECT_EQ(wide.dtype_of("model.layers.0.self_attn.q_proj.scales"), "float16");
  EXPECT_EQ(wide.get_memory_footprint(), stored.get_memory_footprint());
  EXPECT_TRUE(contains(error_of([&] { return wide.dtype_of("model.layers.-3.input_layernorm.weight"); }), "no tensor"));
}

TEST(TorchDtype, RoundsWhatIsNotQuantized) {
  const auto source = Checkpoint::open(kLlama);
  test::EditedCheckpoint by_hand(*source);
  for (auto& [name, tensor] : by_hand.tensors) {
    Tensor half(tensor.shape(), DType::f16);
    for (std::int64_t i = 0; i < half.count(); ++i) store_from_f32(DType::f16, half.data(), i, tensor.view().at(i));
    tensor = half;
  }
  const test::TempDir dir;
  by_hand.write(dir / "half");
  PreTrainedModel model = load(kLlama, {.torch_dtype = "float16"});
  EXPECT_EQ(model.dtype_of("model.norm.weight"), "float16");
  EXPECT_EQ(model.logits(kIds), load((dir / "half").string(), {.torch_dtype = "float16"}).logits(kIds));
}

TEST(DtypeOf, ATiedHeadIsTheEmbedding) {
  const PreTrainedModel model = load(test::data("models/opt-v4-350m").string());
  EXPECT_EQ(model.dtype_of("lm_head.weight"), model.dtype_of("model.decoder.embed_tokens.weight"));
  EXPECT_EQ(model.dtype_of("decoder.layers.-1.final_layer_norm.weight"),
            model.dtype_of("model.decoder.layers.-1.final_layer_norm.weight"));
}

TEST(AttnImplementation, IsAcceptedByName) {
  PreTrainedModel model = load(kLlama, {.attn_implementation = "flash_attention_2"});
  EXPECT_EQ(model.notes().size(), 1U);
  EXPECT_TRUE(contains(load_error(kLlama, {.attn_implementation = "magic"}), "attn_implementation: magic is none of"));
}

TEST(Generate, MaxLengthCountsThePrompt) {
  PreTrainedModel model = load(kLlama);
  EXPECT_EQ(model.generate(kIds, {.max_length = 10, .do_sample = false}).size(), 10U);
  EXPECT_EQ(model.generate(kIds, {.max_new_tokens = 2, .max_length = 10, .do_sample = false}).size(), 5U);
  EXPECT_TRUE(contains(error_of([&] { model.generate(kIds, {.max_length = 3}); }), "max_length is 3"));
}

TEST(PushToHub, SaysWhatToDoInstead) {
  EXPECT_EQ(error_of([] { load(kLlama).push_to_hub("me/it"); }),
            "push_to_hub: nibble has no network: save_pretrained(\"me/it\"), then run: hf upload me/it me/it");
}

}  // namespace
}  // namespace nibble
