// OPT: learned positions that begin at row 2, LayerNorm before or (350m) after, embedding projections (350m).
#include "models/families.h"

namespace nibble::models {

ArchSpec opt() {
  ArchSpec a;
  a.hf_class = "OPTForCausalLM";
  a.model_type = "opt";
  a.prefixes = {"model.decoder.", "decoder.", ""};
  a.names = {
      {Slot::tokens, "embed_tokens"},
      {Slot::positions, "embed_positions"},
      {Slot::project_in, "project_in"},
      {Slot::project_out, "project_out"},
      {Slot::attention_norm, "layers.{}.self_attn_layer_norm"},
      {Slot::q, "layers.{}.self_attn.q_proj"},
      {Slot::k, "layers.{}.self_attn.k_proj"},
      {Slot::v, "layers.{}.self_attn.v_proj"},
      {Slot::o, "layers.{}.self_attn.out_proj"},
      {Slot::mlp_norm, "layers.{}.final_layer_norm"},
      {Slot::up, "layers.{}.fc1"},
      {Slot::down, "layers.{}.fc2"},
      {Slot::final_norm, "final_layer_norm"},
      {Slot::head, "lm_head"},
  };
  a.keys.intermediate_size = {"ffn_dim"};
  a.keys.activation = {"activation_function"};
  a.keys.norm_eps = {};  // fixed in this family
  a.defaults.activation = "relu";
  a.defaults.norm_eps = 1e-5;
  a.defaults.tie_embeddings = true;
  a.norm = nn::NormKind::layer;
  a.positions = Positions::learned;
  a.position_offset = 2;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.embed_size = fields.integer({"word_embed_proj_dim"}, 1, std::int64_t{1} << 20, c.hidden_size);
    c.norm_first = fields.boolean({"do_layer_norm_before"}, true);
    c.norm_affine = fields.boolean({"layer_norm_elementwise_affine"}, true);
    c.final_norm = c.norm_first && !fields.boolean({"_remove_final_layer_norm"}, false);
    c.qkv_bias = c.out_bias = c.mlp_bias = fields.boolean({"enable_bias"}, true);
  };
  return a;
}

}  // namespace nibble::models
