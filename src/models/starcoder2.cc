// StarCoder2 (arXiv:2402.19173): Llama's attention with grouped keys and values, but LayerNorm, biases and a plain MLP.
#include "models/families.h"

namespace nibble::models {

ArchSpec starcoder2() {
  ArchSpec a = llama();
  a.hf_class = "Starcoder2ForCausalLM";
  a.model_type = "starcoder2";
  std::erase_if(a.names,
                [](const Name& n) { return n.slot == Slot::gate || n.slot == Slot::up || n.slot == Slot::down; });
  a.names.push_back({Slot::up, "layers.{}.mlp.c_fc"});
  a.names.push_back({Slot::down, "layers.{}.mlp.c_proj"});
  a.names.push_back({Slot::activation, "layers.{}.mlp.act"});
  a.keys.norm_eps = {"norm_epsilon"};
  a.defaults.activation = "gelu_pytorch_tanh";
  a.defaults.norm_eps = 1e-5;
  a.defaults.max_positions = 4096;
  a.defaults.tie_embeddings = true;
  a.norm = nn::NormKind::layer;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.qkv_bias = c.out_bias = c.mlp_bias = fields.boolean({"use_bias"}, true);
    c.sliding_window.assign(c.sliding_window.size(), fields.integer({"sliding_window"}, 0, std::int64_t{1} << 40, 0));
  };
  return a;
}

}  // namespace nibble::models
