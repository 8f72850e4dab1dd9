// Mixtral (arXiv:2401.04088): Mistral with a sparse mixture of experts in place of the MLP. Files hold each expert's
// matrices as modules of their own, or all experts' in one tensor (what Transformers 5 keeps in memory).
#include "base/error.h"
#include "models/families.h"

namespace nibble::models {

ArchSpec mixtral() {
  ArchSpec a = mistral();
  a.hf_class = "MixtralForCausalLM";
  a.model_type = "mixtral";
  std::erase_if(a.names,
                [](const Name& n) { return n.slot == Slot::gate || n.slot == Slot::up || n.slot == Slot::down; });
  for (const Name& name :
       {Name{Slot::router, "layers.{}.block_sparse_moe.gate"},
        Name{Slot::gate, "layers.{}.block_sparse_moe.experts.{}.w1"},
        Name{Slot::up, "layers.{}.block_sparse_moe.experts.{}.w3"},
        Name{Slot::down, "layers.{}.block_sparse_moe.experts.{}.w2"}, Name{Slot::router, "layers.{}.mlp.gate"},
        Name{Slot::gate, "layers.{}.mlp.experts.{}.gate_proj"}, Name{Slot::up, "layers.{}.mlp.experts.{}.up_proj"},
        Name{Slot::down, "layers.{}.mlp.experts.{}.down_proj"},
        Name{Slot::experts_gate_up, "layers.{}.mlp.experts.gate_up_proj"},
        Name{Slot::experts_down, "layers.{}.mlp.experts.down_proj"}}) {
    a.names.push_back(name);
  }
  a.defaults.norm_eps = 1e-5;
  a.defaults.rope_theta = 1e6;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    // Unlike Mistral's, the class has no window of its own.
    c.sliding_window.assign(c.sliding_window.size(), fields.integer({"sliding_window"}, 0, std::int64_t{1} << 40, 0));
    c.num_experts = fields.integer({"num_local_experts", "num_experts"}, 1, 1 << 12, 8);
    c.experts_per_token = fields.integer({"num_experts_per_tok"}, 1, 1 << 12, 2);
    if (c.experts_per_token > c.num_experts) {
      throw bad_input(fields.field("num_experts_per_tok"), " is ", c.experts_per_token, ", but there are ",
                      c.num_experts, " experts");
    }
  };
  return a;
}

}  // namespace nibble::models
