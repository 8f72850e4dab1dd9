// GPT-2: learned positions, LayerNorm, fused q/k/v, weights stored [inputs, outputs].
#include "models/families.h"

namespace nibble::models {

ArchSpec gpt2() {
  ArchSpec a;
  a.hf_class = "GPT2LMHeadModel";
  a.model_type = "gpt2";
  a.prefixes = {"transformer.", ""};
  a.names = {
      {Slot::tokens, "wte"},           {Slot::positions, "wpe"},        {Slot::attention_norm, "h.{}.ln_1"},
      {Slot::qkv, "h.{}.attn.c_attn"}, {Slot::o, "h.{}.attn.c_proj"},   {Slot::mlp_norm, "h.{}.ln_2"},
      {Slot::up, "h.{}.mlp.c_fc"},     {Slot::down, "h.{}.mlp.c_proj"}, {Slot::final_norm, "ln_f"},
      {Slot::head, "lm_head"},
  };
  a.keys.hidden_size = {"n_embd", "hidden_size"};
  a.keys.intermediate_size = {"n_inner", "intermediate_size"};
  a.keys.num_layers = {"n_layer", "num_hidden_layers"};
  a.keys.num_heads = {"n_head", "num_attention_heads"};
  a.keys.max_positions = {"n_positions", "n_ctx", "max_position_embeddings"};
  a.keys.activation = {"activation_function", "hidden_act"};
  a.keys.norm_eps = {"layer_norm_epsilon"};
  a.defaults.activation = "gelu_new";
  a.defaults.norm_eps = 1e-5;
  a.defaults.max_positions = 1024;
  a.defaults.intermediate_factor = 4;
  a.defaults.tie_embeddings = true;
  a.norm = nn::NormKind::layer;
  a.positions = Positions::learned;
  a.transposed = true;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.qkv_bias = c.out_bias = c.mlp_bias = true;
    const bool scaled = fields.boolean({"scale_attn_weights"}, true);
    const bool by_layer = fields.boolean({"scale_attn_by_inverse_layer_idx"}, false);
    for (std::size_t layer = 0; layer < c.attention_scale.size(); ++layer) {
      if (!scaled) c.attention_scale[layer] = 1;
      if (by_layer) c.attention_scale[layer] /= static_cast<float>(layer + 1);
    }
  };
  return a;
}

}  // namespace nibble::models
