// GPT-NeoX (arXiv:2204.06745) and Pythia: q/k/v of one module head by head, a part of each head rotated, attention and
// MLP side by side (or, without use_parallel_residual, one after the other).
#include "models/families.h"

namespace nibble::models {

ArchSpec gpt_neox() {
  ArchSpec a;
  a.hf_class = "GPTNeoXForCausalLM";
  a.model_type = "gpt_neox";
  a.prefixes = {"gpt_neox.", ""};
  a.names = {
      {Slot::tokens, "embed_in"},
      {Slot::attention_norm, "layers.{}.input_layernorm"},
      {Slot::qkv, "layers.{}.attention.query_key_value"},
      {Slot::o, "layers.{}.attention.dense"},
      {Slot::mlp_norm, "layers.{}.post_attention_layernorm"},
      {Slot::up, "layers.{}.mlp.dense_h_to_4h"},
      {Slot::down, "layers.{}.mlp.dense_4h_to_h"},
      {Slot::activation, "layers.{}.mlp.act"},
      {Slot::final_norm, "final_layer_norm"},
      {Slot::head, "embed_out"},
      {Slot::head, "lm_head"},  // what Transformers 5.24 calls it in memory
  };
  a.keys.norm_eps = {"layer_norm_eps"};
  a.keys.rope_theta = {"rope_theta", "rotary_emb_base"};
  a.keys.rope_partial = {"partial_rotary_factor", "rotary_pct"};
  a.defaults.activation = "gelu";
  a.defaults.norm_eps = 1e-5;
  a.defaults.rope_partial = 0.25;
  a.norm = nn::NormKind::layer;
  a.qkv_order = nn::QkvOrder::heads;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.num_kv_heads = c.num_heads;
    c.qkv_bias = c.out_bias = fields.boolean({"attention_bias"}, true);
    c.mlp_bias = true;
    if (fields.boolean({"use_parallel_residual"}, true)) c.block = nn::parallel_block;
  };
  return a;
}

}  // namespace nibble::models
