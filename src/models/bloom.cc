// BLOOM (arXiv:2211.05100): ALiBi, LayerNorm of the embeddings too, q/k/v of one module head by head, tied head.
#include "models/families.h"

namespace nibble::models {

ArchSpec bloom() {
  ArchSpec a;
  a.hf_class = "BloomForCausalLM";
  a.model_type = "bloom";
  a.prefixes = {"transformer.", ""};
  a.names = {
      {Slot::tokens, "word_embeddings"},
      {Slot::embedding_norm, "word_embeddings_layernorm"},
      {Slot::attention_norm, "h.{}.input_layernorm"},
      {Slot::qkv, "h.{}.self_attention.query_key_value"},
      {Slot::o, "h.{}.self_attention.dense"},
      {Slot::mlp_norm, "h.{}.post_attention_layernorm"},
      {Slot::up, "h.{}.mlp.dense_h_to_4h"},
      {Slot::down, "h.{}.mlp.dense_4h_to_h"},
      {Slot::activation, "h.{}.mlp.gelu_impl"},
      {Slot::final_norm, "ln_f"},
      {Slot::head, "lm_head"},
  };
  a.keys.hidden_size = {"n_embed", "hidden_size"};
  a.keys.intermediate_size = {};  // four times hidden_size in this family
  a.keys.num_layers = {"n_layer", "num_hidden_layers"};
  a.keys.num_heads = {"n_head", "num_attention_heads"};
  a.keys.max_positions = {"seq_length"};  // what it was trained on; ALiBi has no limit
  a.keys.activation = {};
  a.keys.norm_eps = {"layer_norm_epsilon"};
  a.defaults.activation = "gelu_new";
  a.defaults.norm_eps = 1e-5;
  a.defaults.intermediate_factor = 4;
  a.defaults.tie_embeddings = true;
  a.norm = nn::NormKind::layer;
  a.qkv_order = nn::QkvOrder::heads;
  a.positions = Positions::alibi;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.num_kv_heads = c.num_heads;
    c.qkv_bias = c.out_bias = c.mlp_bias = true;
    if (fields.boolean({"apply_residual_connection_post_layernorm"}, false)) c.block = nn::normed_residual_block;
  };
  return a;
}

}  // namespace nibble::models
