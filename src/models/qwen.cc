// Qwen2 (biases on q, k, v; windows on the upper layers) and Qwen3 (norms of q and k).
#include "base/error.h"
#include "models/families.h"

namespace nibble::models {
namespace {

void configure_qwen3(const ConfigReader& fields, ModelConfig& c) {
  c.qkv_bias = c.out_bias = fields.boolean({"attention_bias"}, false);
  configure_layer_windows(fields, c);
}

}  // namespace

void configure_layer_windows(const ConfigReader& fields, ModelConfig& c) {
  const bool absent = fields.object().find("sliding_window") == nullptr;
  const std::int64_t window = fields.integer({"sliding_window"}, 0, std::int64_t{1} << 40, absent ? 4096 : 0);
  if (!fields.boolean({"use_sliding_window"}, false) || window == 0) return;
  const std::int64_t first = fields.integer({"max_window_layers"}, 0, std::int64_t{1} << 40, 28);
  const Json* types = fields.find({"layer_types"});
  const std::string where = fields.field("layer_types");
  if (types != nullptr && types->array(where).size() != static_cast<std::size_t>(c.num_layers)) {
    throw bad_input(where, " has ", types->array(where).size(), " entries, but there are ", c.num_layers, " layers");
  }
  c.sliding_window.assign(static_cast<std::size_t>(c.num_layers), 0);
  for (std::size_t layer = 0; layer < c.sliding_window.size(); ++layer) {
    bool slides = static_cast<std::int64_t>(layer) >= first;
    if (types != nullptr) {
      const std::string& type = types->array(where)[layer].string(where);
      slides = type == "sliding_attention";
      if (!slides && type != "full_attention") throw bad_input(where, ": unknown layer type ", printable(type));
    }
    if (slides) c.sliding_window[layer] = window;
  }
}

ArchSpec qwen2() {
  ArchSpec a = llama();
  a.hf_class = "Qwen2ForCausalLM";
  a.model_type = "qwen2";
  a.defaults.max_positions = 32768;
  a.configure = [](const ConfigReader& fields, ModelConfig& c) {
    c.qkv_bias = true;
    configure_layer_windows(fields, c);
  };
  return a;
}

ArchSpec qwen3() {
  ArchSpec a = llama();
  a.hf_class = "Qwen3ForCausalLM";
  a.model_type = "qwen3";
  a.names.push_back({Slot::q_norm, "layers.{}.self_attn.q_norm"});
  a.names.push_back({Slot::k_norm, "layers.{}.self_attn.k_norm"});
  a.defaults.max_positions = 32768;
  a.defaults.head_dim = 128;
  a.configure = configure_qwen3;
  return a;
}

}  // namespace nibble::models
