#include "models/model_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/error.h"
#include "models/arch.h"

namespace nibble::models {
namespace {

const std::string kLlama =
    R"("architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
       "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 53, "max_position_embeddings": 64)";

/// `base` with these fields set or added.
ModelConfig parse(const std::string& fields, const std::string& base = kLlama) {
  Json config = Json::parse("{" + base + "}", "base");
  const Json changes = Json::parse("{" + fields + "}", "fields");
  for (const auto& [key, value] : changes.object("fields")) config.set(key, value);
  return parse_model_config(config, "m/config.json");
}

/// The message that these fields are refused with; "" when they are not.
std::string refusal(const std::string& fields, const std::string& base = kLlama) {
  try {
    parse(fields, base);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}

void expect_refusal(const std::string& fields, const std::string& what, const std::string& base = kLlama) {
  EXPECT_NE(refusal(fields, base).find(what), std::string::npos) << fields << " -> " << refusal(fields, base);
}

TEST(ModelConfig, DefaultsAreThoseOfTransformers) {
  const ModelConfig c = parse("");
  EXPECT_EQ(c.architecture, "LlamaForCausalLM");
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.num_kv_heads, 4);
  EXPECT_EQ(c.context_length, 64);
  EXPECT_EQ(c.norm_eps, 1e-6f);
  EXPECT_EQ(c.activation, Activation::silu);
  EXPECT_FALSE(c.tie_embeddings);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_FALSE(c.dtype.has_value());
  EXPECT_EQ(c.sliding_window, std::vector<std::int64_t>(5, 0));
}

TEST(ModelConfig, BothDialectsMeanTheSame) {
  const std::string shape = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 16)";
  const ModelConfig four = parse(R"("torch_dtype": "bfloat16", "rope_theta": 500000.0,
                                    "rope_scaling": {"rope_type": "llama3", )" +
                                 shape + "}");
  const ModelConfig five = parse(R"("dtype": "bfloat16",
                                    "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, )" +
                                 shape + "}");
  const ModelConfig old = parse(R"("torch_dtype": "bfloat16", "rope_theta": 500000,
                                   "rope_scaling": {"type": "llama3", )" +
                                shape + "}");
  for (const ModelConfig& c : {four, five, old}) {
    EXPECT_EQ(c.dtype, DType::bf16);
    EXPECT_EQ(c.rope.kind, nn::RopeKind::llama3);
    EXPECT_EQ(c.rope.theta, 500000);
    EXPECT_EQ(c.rope.factor, 8);
    EXPECT_EQ(c.rope.original_positions, 16);
  }
}

TEST(ModelConfig, RopeStretchesTheContext) {
  EXPECT_EQ(parse(R"("rope_scaling": {"type": "linear", "factor": 4})").context_length, 256);
  EXPECT_EQ(parse(R"("rope_scaling": {"type": "dynamic", "factor": 2.0})").context_length, 128);
  EXPECT_EQ(
      parse(R"("rope_scaling": {"type": "yarn", "factor": 8, "original_max_position_embeddings": 16})").context_length,
      128);
  EXPECT_EQ(parse(R"("rope_scaling": null)").context_length, 64);
  EXPECT_EQ(parse(R"("rope_scaling": {})").rope.kind, nn::RopeKind::standard);
}

TEST(ModelConfig, YarnTemperature) {
  const auto factor = [](const std::string& more) {
    return parse(R"("rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16)" + more +
                 "}")
        .rope.attention_factor;
  };
  EXPECT_DOUBLE_EQ(factor(""), 0.1 * std::log(4.0) + 1);
  EXPECT_DOUBLE_EQ(factor(R"(, "attention_factor": 1.5)"), 1.5);
  EXPECT_DOUBLE_EQ(factor(R"(, "mscale": 1.0, "mscale_all_dim": 1.0)"), 1.0);
  EXPECT_DOUBLE_EQ(factor(R"(, "mscale": 0.5)"), 0.1 * std::log(4.0) + 1);
}

TEST(ModelConfig, OlderSpellings) {
  const ModelConfig c = parse(R"("scale_attn_weights": false, "bos_token_id": 50256)",
                              R"("model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "n_ctx": 512,
                                 "n_inner": null, "vocab_size": 53)");
  EXPECT_EQ(c.architecture, "GPT2LMHeadModel");
  EXPECT_EQ(c.max_positions, 512);
  EXPECT_EQ(c.intermediate_size, 256);
  EXPECT_EQ(c.activation, Activation::gelu_tanh);
  EXPECT_EQ(c.norm_eps, 1e-5f);
  EXPECT_TRUE(c.tie_embeddings);
  EXPECT_EQ(c.attention_scale[0], 1);
}

TEST(ModelConfig, Opt) {
  const std::string base = R"("architectures": ["OPTForCausalLM"], "hidden_size": 96, "ffn_dim": 384, "vocab_size": 65,
                              "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 96)";
  EXPECT_TRUE(parse("", base).final_norm);
  EXPECT_EQ(parse("", base).embed_size, 96);
  const ModelConfig c = parse(R"("do_layer_norm_before": false, "word_embed_proj_dim": 32, "enable_bias": false,
                                 "layer_norm_elementwise_affine": false)",
                              base);
  EXPECT_FALSE(c.norm_first || c.final_norm || c.qkv_bias || c.mlp_bias || c.norm_affine);
  EXPECT_EQ(c.embed_size, 32);
  EXPECT_FALSE(parse(R"("_remove_final_layer_norm": true)", base).final_norm);
}

TEST(ModelConfig, SlidingWindows) {
  const std::string qwen = kLlama + R"(, "use_sliding_window": true, "sliding_window": 16)";
  const std::string as_qwen = R"("architectures": ["Qwen2ForCausalLM"], )";
  const auto windows = [&](const std::string& fields) { return parse(as_qwen + fields, qwen).sliding_window; };
  using W = std::vector<std::int64_t>;
  EXPECT_EQ(windows(R"("max_window_layers": 3)"), (W{0, 0, 0, 16, 16}));
  EXPECT_EQ(windows(R"("use_sliding_window": false)"), (W{0, 0, 0, 0, 0}));
  EXPECT_EQ(windows(R"("layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention",
                       "sliding_attention"])"),
            (W{16, 0, 0, 0, 16}));
  expect_refusal(as_qwen + R"("layer_types": ["full_attention"])", "field layer_types has 1 entries", qwen);
  expect_refusal(as_qwen + R"("layer_types": ["a", "a", "a", "a", "a"])", "unknown layer type a", qwen);
  const std::string mistral = R"("architectures": ["MistralForCausalLM"])";
  EXPECT_EQ(parse(mistral).sliding_window, W(5, 4096));
  EXPECT_EQ(parse(mistral + R"(, "sliding_window": null)").sliding_window, W(5, 0));
}

TEST(ModelConfig, NamesWhatIsSupported) {
  for (const ArchSpec& arch : all_archs()) {
    expect_refusal(R"("architectures": ["FooForCausalLM"])", std::string(arch.hf_class));
  }
  expect_refusal(R"("architectures": ["FooForCausalLM"])", "architecture FooForCausalLM is not supported");
  expect_refusal(R"("architectures": ["Foo"], "auto_map": {"AutoModelForCausalLM": "modeling_foo.Foo"})",
                 "Python code");
  expect_refusal(R"("architectures": null, "model_type": "foo")", "architecture foo is not supported");
  EXPECT_EQ(parse(R"("architectures": null, "model_type": "qwen2")").architecture, "Qwen2ForCausalLM");
  EXPECT_EQ(parse(R"("architectures": ["Foo", "LlamaForCausalLM"])").architecture, "LlamaForCausalLM");
  expect_refusal(R"("architectures": "LlamaForCausalLM")", "field architectures");
  EXPECT_THROW(parse_model_config(Json(), "config.json"), Error);
  EXPECT_THROW(parse_model_config(Json(Json::Array{}), "config.json"), Error);
}

TEST(ModelConfig, RefusesAbsurdSizes) {
  expect_refusal(R"("hidden_size": 0)", "m/config.json: field hidden_size is 0, which is not between 1 and");
  expect_refusal(R"("hidden_size": -64)", "field hidden_size");
  expect_refusal(R"("hidden_size": "64")", "field hidden_size: expected a whole number");
  expect_refusal(R"("hidden_size": 64.5)", "field hidden_size");
  expect_refusal(R"("hidden_size": null)", "field hidden_size is missing");
  expect_refusal(R"("hidden_size": 9223372036854775807)", "field hidden_size");
  expect_refusal(R"("num_hidden_layers": 1000000000)", "field num_hidden_layers is 1000000000");
  expect_refusal(R"("num_attention_heads": 0)", "field num_attention_heads");
  expect_refusal(R"("num_attention_heads": 7, "num_key_value_heads": 7)", "does not divide hidden_size 64");
  expect_refusal(R"("num_key_value_heads": 3)", "does not divide the 8 attention heads");
  expect_refusal(R"("num_key_value_heads": 16)", "field num_key_value_heads is 16");
  expect_refusal(R"("vocab_size": 1e300)", "field vocab_size");
  expect_refusal(R"("head_dim": 7)", "field head_dim: rotary positions need an even number");
  expect_refusal(R"("head_dim": 1048576, "num_attention_heads": 64, "num_key_value_heads": 64)", "field head_dim");
  expect_refusal(R"("max_position_embeddings": 0)", "field max_position_embeddings");
  expect_refusal(R"("rms_norm_eps": -1e-5)", "field rms_norm_eps");
  expect_refusal(R"("rms_norm_eps": [])", "field rms_norm_eps: expected a number");
  expect_refusal(R"("hidden_act": "mish")", "unknown activation mish");
  expect_refusal(R"("torch_dtype": "int8")", "field torch_dtype: unknown float type int8");
  expect_refusal(R"("dtype": "complex")", "field dtype");
  expect_refusal(R"("tie_word_embeddings": 1)", "field tie_word_embeddings");
}

TEST(ModelConfig, RefusesBadRope) {
  expect_refusal(R"("rope_theta": 0)", "field rope_theta");
  expect_refusal(R"("rope_theta": "NaN")", "field rope_theta");
  expect_refusal(R"("rope_parameters": {"full_attention": {"rope_theta": 1e6}})", "each type of layer");
  expect_refusal(R"("rope_scaling": 3)", "field rope_scaling: expected an object");
  expect_refusal(R"("rope_scaling": {"type": "longrope", "factor": 2})", "longrope is not supported");
  expect_refusal(R"("rope_scaling": {"type": "linear"})", "field rope_scaling: field factor is missing");
  expect_refusal(R"("rope_scaling": {"type": "linear", "factor": 0})", "field factor");
  expect_refusal(R"("rope_scaling": {"type": "llama3", "factor": 8})", "field low_freq_factor is missing");
  expect_refusal(R"("rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4})",
                 "must be greater than low_freq_factor");
  expect_refusal(R"("rope_scaling": {"type": "yarn", "factor": 2}, "rope_theta": 1)", "greater than 1");
  expect_refusal(R"("rope_scaling": {"type": "dynamic", "factor": 2}, "head_dim": 2)", "at least 4");
}

}  // namespace
}  // namespace nibble::models
