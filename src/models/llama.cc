// Llama 1 to 3 and everything that is saved as LlamaForCausalLM (Yi, Vicuna, ...), and Mistral.
#include "models/families.h"

namespace nibble::models {

ArchSpec llama() {
  ArchSpec a;
  a.hf_class = "LlamaForCausalLM";
  a.model_type = "llama";
  a.prefixes = {"model.", ""};
  a.names = {
      {Slot::tokens, "embed_tokens"},
      {Slot::attention_norm, "layers.{}.input_layernorm"},
      {Slot::q, "layers.{}.self_attn.q_proj"},
      {Slot::k, "layers.{}.self_attn.k_proj"},
      {Slot::v, "layers.{}.self_attn.v_proj"},
      {Slot::o, "layers.{}.self_attn.o_proj"},
      {Slot::mlp_norm, "layers.{}.post_attention_layernorm"},
      {Slot::gate, "layers.{}.mlp.gate_proj"},
      {Slot::up, "layers.{}.mlp.up_proj"},
      {Slot::down, "layers.{}.mlp.down_proj"},
      {Slot::final_norm, "norm"},
      {Slot::head, "lm_head"},
  };
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.qkv_bias = c.out_bias = fields.boolean({"attention_bias"}, false);
    c.mlp_bias = fields.boolean({"mlp_bias"}, false);
  };
  return a;
}

ArchSpec mistral() {
  ArchSpec a = llama();
  a.hf_class = "MistralForCausalLM";
  a.model_type = "mistral";
  a.defaults.max_positions = 4096 * 32;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    // An explicit null means no window; the class default of 4096 counts only when the field is left out.
    const bool absent = fields.object().find("sliding_window") == nullptr;
    const std::int64_t window = fields.integer({"sliding_window"}, 0, std::int64_t{1} << 40, absent ? 4096 : 0);
    c.sliding_window.assign(static_cast<std::size_t>(c.num_layers), window);
  };
  return a;
}

}  // namespace nibble::models
