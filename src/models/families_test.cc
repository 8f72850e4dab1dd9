// The families' own config fields: published configurations as their repositories hold them, and hostile ones.
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "models/arch.h"
#include "models/model_config.h"

namespace nibble::models {
namespace {

ModelConfig parse(const std::string& base, const std::string& fields = "") {
  Json config = Json::parse("{" + base + "}", "base");
  const Json changes = Json::parse("{" + fields + "}", "fields");
  for (const auto& [key, value] : changes.object("fields")) config.set(key, value);
  return parse_model_config(config, "m/config.json");
}

void expect_refusal(const std::string& base, const std::string& fields, const std::string& what) {
  std::string message;
  try {
    parse(base, fields);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    message = error.what();
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
  EXPECT_NE(message.find(what), std::string::npos) << fields << " -> " << message;
}

const std::string kBloom560m =
    R"("apply_residual_connection_post_layernorm": false, "architectures": ["BloomForCausalLM"], "bias_dropout_fusion": true,
       "hidden_dropout": 0.0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": true,
       "model_type": "bloom", "n_embed": 1024, "n_inner": null, "n_layer": 24, "num_attention_heads": 16,
       "offset_alibi": 100, "pretraining_tp": 1, "seq_length": 2048, "skip_bias_add": true, "use_cache": true,
       "vocab_size": 250880)";
const std::string kPythia410m =
    R"("architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
       "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
       "model_type": "gpt_neox", "num_attention_heads": 16, "num_hidden_layers": 24, "rotary_emb_base": 10000,
       "rotary_pct": 0.25, "tie_word_embeddings": false, "torch_dtype": "float16", "use_parallel_residual": true,
       "vocab_size": 50304)";
const std::string kStarcoder2_3b =
    R"("architectures": ["Starcoder2ForCausalLM"], "hidden_act": "gelu_pytorch_tanh", "hidden_size": 3072,
       "intermediate_size": 12288, "max_position_embeddings": 16384, "mlp_type": "default", "model_type": "starcoder2",
       "norm_epsilon": 1e-05, "norm_type": "layer_norm", "num_attention_heads": 24, "num_hidden_layers": 30,
       "num_key_value_heads": 2, "rope_theta": 999999.4420358813, "sliding_window": 4096, "use_bias": true,
       "vocab_size": 49152)";
const std::string kMixtral8x7b =
    R"("architectures": ["MixtralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
       "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2,
       "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05,
       "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false,
       "torch_dtype": "bfloat16", "vocab_size": 32000)";
const std::string kZephyr7b =
    R"("architectures": ["MistralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
       "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
       "num_key_value_heads": 8, "pad_token_id": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
       "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 32000)";
const std::string kYi34b =
    R"("architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 20480,
       "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 56, "num_hidden_layers": 60,
       "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 5000000.0,
       "tie_word_embeddings": false, "vocab_size": 64000)";

/// As facebook/opt-* spell it, with the sizes given.
std::string opt(std::int64_t hidden, std::int64_t layers, std::int64_t heads) {
  return cat(R"("_remove_final_layer_norm": false, "activation_function": "relu", "architectures": ["OPTForCausalLM"],
                "do_layer_norm_before": true, "max_position_embeddings": 2048, "model_type": "opt", "vocab_size": 50272,
                "hidden_size": )",
             hidden, R"(, "ffn_dim": )", 4 * hidden, R"(, "word_embed_proj_dim": )", hidden,
             R"(, "num_hidden_layers": )", layers, R"(, "num_attention_heads": )", heads);
}

TEST(Families, Bloom) {
  const ModelConfig c = parse(kBloom560m);
  EXPECT_EQ(c.hidden_size, 1024);
  EXPECT_EQ(c.intermediate_size, 4096);
  EXPECT_EQ(c.num_layers, 24);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.context_length, 2048);
  EXPECT_EQ(c.activation, Activation::gelu_tanh);
  EXPECT_TRUE(c.tie_embeddings && c.qkv_bias && c.out_bias && c.mlp_bias);
  EXPECT_EQ(c.block, nn::standard_block);
  EXPECT_EQ(parse(kBloom560m, R"("apply_residual_connection_post_layernorm": true)").block, nn::normed_residual_block);
  // n_embed counts before hidden_size, as in Transformers; the heads' keys and values are never shared.
  EXPECT_EQ(parse(kBloom560m, R"("hidden_size": 64)").hidden_size, 1024);
  EXPECT_EQ(parse(kBloom560m, R"("num_key_value_heads": 4)").num_kv_heads, 16);
}

TEST(Families, BloomHostile) {
  expect_refusal(kBloom560m, R"("num_attention_heads": 7)", "field n_head is 7, which does not divide n_embed 1024");
  expect_refusal(kBloom560m, R"("n_head": 0)", "field n_head is 0");
  expect_refusal(kBloom560m, R"("n_embed": 1e18)", "field n_embed");
  expect_refusal(kBloom560m, R"("n_layer": 1000000)", "field n_layer is 1000000");
  expect_refusal(kBloom560m, R"("layer_norm_epsilon": "NaN")", "field layer_norm_epsilon");
  expect_refusal(kBloom560m, R"("apply_residual_connection_post_layernorm": 1)", "expected true or false");
}

TEST(Families, GptNeoX) {
  const ModelConfig c = parse(kPythia410m);
  EXPECT_DOUBLE_EQ(c.rope.partial, 0.25);
  EXPECT_DOUBLE_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.activation, Activation::gelu);
  EXPECT_EQ(c.block, nn::parallel_block);
  EXPECT_TRUE(c.qkv_bias && c.out_bias && c.mlp_bias && !c.tie_embeddings);
  EXPECT_EQ(parse(kPythia410m, R"("use_parallel_residual": false)").block, nn::standard_block);
  const ModelConfig five = parse(kPythia410m, R"("rotary_pct": null, "rotary_emb_base": null, "rope_parameters":
                                 {"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 0.5})");
  EXPECT_DOUBLE_EQ(five.rope.partial, 0.5);
  EXPECT_DOUBLE_EQ(five.rope.theta, 500);
  EXPECT_DOUBLE_EQ(parse(kPythia410m, R"("rotary_pct": null)").rope.partial, 0.25);
}

TEST(Families, GptNeoXHostile) {
  expect_refusal(kPythia410m, R"("rotary_pct": "NaN")", "field rotary_pct");
  expect_refusal(kPythia410m, R"("rotary_pct": -0.25)", "field rotary_pct is -0.25");
  expect_refusal(kPythia410m, R"("rotary_pct": 1.5)", "field rotary_pct is 1.5");
  expect_refusal(kPythia410m, R"("rotary_pct": 0.05)", "rotary positions need an even number");
  expect_refusal(kPythia410m, R"("rotary_emb_base": 0)", "field rotary_emb_base is 0");
  expect_refusal(kPythia410m, R"("num_attention_heads": 15)", "which does not divide hidden_size 1024");
  expect_refusal(kPythia410m, R"("intermediate_size": 9223372036854775807)", "field intermediate_size");
  expect_refusal(kPythia410m, R"("use_parallel_residual": "yes")", "field use_parallel_residual");
}

TEST(Families, Starcoder2) {
  const ModelConfig c = parse(kStarcoder2_3b);
  EXPECT_EQ(c.num_kv_heads, 2);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.sliding_window, std::vector<std::int64_t>(30, 4096));
  EXPECT_EQ(c.norm_eps, 1e-5f);
  EXPECT_TRUE(c.tie_embeddings && c.qkv_bias && c.out_bias && c.mlp_bias);
  EXPECT_EQ(parse(kStarcoder2_3b, R"("sliding_window": null)").sliding_window, std::vector<std::int64_t>(30, 0));
  EXPECT_FALSE(parse(kStarcoder2_3b, R"("use_bias": false)").mlp_bias);
  expect_refusal(kStarcoder2_3b, R"("sliding_window": -1)", "field sliding_window is -1");
  expect_refusal(kStarcoder2_3b, R"("num_key_value_heads": 5)", "does not divide the 24 attention heads");
}

TEST(Families, Mixtral) {
  const ModelConfig c = parse(kMixtral8x7b);
  EXPECT_EQ(c.num_experts, 8);
  EXPECT_EQ(c.experts_per_token, 2);
  EXPECT_EQ(c.sliding_window, std::vector<std::int64_t>(32, 0));
  EXPECT_DOUBLE_EQ(c.rope.theta, 1e6);
  EXPECT_DOUBLE_EQ(parse(kMixtral8x7b, R"("rope_theta": null)").rope.theta, 1e6);
  expect_refusal(kMixtral8x7b, R"("num_local_experts": 0)", "field num_local_experts is 0");
  expect_refusal(kMixtral8x7b, R"("num_local_experts": 1000000000)", "field num_local_experts");
  expect_refusal(kMixtral8x7b, R"("num_experts_per_tok": 0)", "field num_experts_per_tok is 0");
  expect_refusal(kMixtral8x7b, R"("num_experts_per_tok": 9)",
                 "field num_experts_per_tok is 9, but there are 8 experts");
  expect_refusal(kMixtral8x7b, R"("num_experts_per_tok": 2.5)", "field num_experts_per_tok");
}

TEST(Families, MistralAndLlamaFinetunes) {
  const ModelConfig zephyr = parse(kZephyr7b);
  EXPECT_EQ(zephyr.sliding_window, std::vector<std::int64_t>(32, 4096));
  EXPECT_EQ(zephyr.num_kv_heads, 8);
  EXPECT_EQ(zephyr.context_length, 32768);
  const ModelConfig yi = parse(kYi34b);
  EXPECT_EQ(yi.head_dim, 128);
  EXPECT_EQ(yi.num_heads / yi.num_kv_heads, 7);
  EXPECT_DOUBLE_EQ(yi.rope.theta, 5e6);
}

TEST(Families, OptOfEverySize) {
  struct Size {
    std::int64_t hidden, layers, heads;
  };
  // 125m, 1.3b, 2.7b, 6.7b, 13b, 30b, 66b.
  for (const Size s : {Size{768, 12, 12}, Size{2048, 24, 32}, Size{2560, 32, 32}, Size{4096, 32, 32},
                       Size{5120, 40, 40}, Size{7168, 48, 56}, Size{9216, 64, 72}}) {
    const ModelConfig c = parse(opt(s.hidden, s.layers, s.heads));
    EXPECT_EQ(c.intermediate_size, 4 * s.hidden);
    EXPECT_EQ(c.head_dim, s.hidden / s.heads);
    EXPECT_EQ(c.embed_size, s.hidden);
    EXPECT_TRUE(c.norm_first && c.final_norm && c.norm_affine && c.qkv_bias && c.tie_embeddings);
  }
  const ModelConfig c =
      parse(opt(1024, 24, 16), R"("do_layer_norm_before": false, "word_embed_proj_dim": 512)");  // 350m
  EXPECT_EQ(c.embed_size, 512);
  EXPECT_FALSE(c.norm_first || c.final_norm);
}

}  // namespace
}  // namespace nibble::models
