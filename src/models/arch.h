// ArchSpec: a model family as data. Families differ in what their tensors and config fields are called and in a few
// choices; the builder does the rest. Adding one is a function that returns an ArchSpec (start from the nearest family
// and edit) and a line in archs.def. A family whose block has another shape names its own `block` function instead of
// adding a flag that nobody else uses.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/config_reader.h"
#include "models/model_config.h"
#include "nn/block.h"

namespace nibble::models {

/// The places of a decoder that weights go to.
enum class Slot : std::uint8_t {
  tokens,          ///< token embedding
  positions,       ///< learned position embedding
  project_in,      ///< embed_size -> hidden_size
  project_out,     ///< hidden_size -> embed_size
  embedding_norm,  ///< of the token embeddings
  final_norm,
  head,  ///< to the vocabulary
  // of a block ("{}" in the name is its number)
  attention_norm,
  q,
  k,
  v,
  qkv,  ///< one module for q, k and v (ArchSpec::qkv_order)
  q_norm,
  k_norm,
  o,
  mlp_norm,
  gate,
  up,
  down,
  activation,  ///< the MLP's, which AWQ gives a tensor "scales" (AutoAWQ's ScaledActivation)
  router,  ///< mixture of experts: scores the experts; gate, up and down then have a second "{}", the expert's number
  experts_gate_up,  ///< tensor with the weights of all experts' gate and up, [experts, 2 * intermediate, hidden]
  experts_down,     ///< tensor [experts, hidden, intermediate]
};

/// A slot may have several names, the usual one first; the others come from other versions of Transformers.
struct Name {
  Slot slot;
  std::string_view module;  ///< without prefix, for example "layers.{}.self_attn.q_proj"
};

/// How a decoder knows the order of its tokens.
enum class Positions : std::uint8_t {
  rotary,
  learned,  ///< a table that is added to the token embeddings
  alibi,    ///< a bias of attention scores that grows with the distance (arXiv:2108.12409)
};

/// How a family spells the fields that all families have.
struct ConfigKeys {
  Keys hidden_size{"hidden_size"};
  Keys intermediate_size{"intermediate_size"};
  Keys num_layers{"num_hidden_layers"};
  Keys num_heads{"num_attention_heads"};
  Keys max_positions{"max_position_embeddings"};
  Keys activation{"hidden_act"};
  Keys norm_eps{"rms_norm_eps"};
  Keys rope_theta{"rope_theta"};
  Keys rope_partial{"partial_rotary_factor"};
};

/// What Transformers assumes for a field that config.json leaves out; sizes without an entry must be there.
struct ConfigDefaults {
  std::string_view activation = "silu";
  double norm_eps = 1e-6;
  std::int64_t max_positions = 2048;
  std::int64_t head_dim = 0;             ///< 0: hidden_size / num_heads
  std::int64_t intermediate_factor = 0;  ///< intermediate_size = factor * hidden_size; 0: the field must be there
  double rope_theta = 10000;
  double rope_partial = 1;
  bool tie_embeddings = false;
};

struct ArchSpec {
  std::string_view hf_class;    ///< "LlamaForCausalLM"
  std::string_view model_type;  ///< "llama"
  /// In front of all modules but the head, the usual one first; others come from older or base-model checkpoints.
  std::vector<std::string_view> prefixes;
  std::vector<Name> names;
  ConfigKeys keys;
  ConfigDefaults defaults;
  nn::NormKind norm = nn::NormKind::rms;
  nn::QkvOrder qkv_order = nn::QkvOrder::blocks;
  Positions positions = Positions::rotary;
  std::int64_t position_offset = 0;             ///< row of the learned table that position 0 has
  bool transposed = false;                      ///< block weights are stored [inputs, outputs] (GPT-2's Conv1D)
  nn::BlockForward block = nn::standard_block;  ///< `configure` may choose another
  /// The family's own fields; may be null. Runs after the common ones are read.
  void (*configure)(const ConfigReader& fields, ModelConfig& config) = nullptr;

  /// The usual name; nullptr when the family has no such module.
  const Name* find(Slot slot) const;
};

/// All families, from archs.def.
std::span<const ArchSpec> all_archs();
/// nullptr when there is none of this class.
const ArchSpec* find_arch(std::string_view hf_class);

/// Sliding windows as Qwen2 and Qwen3 configure them (use_sliding_window, max_window_layers, layer_types).
void configure_layer_windows(const ConfigReader& fields, ModelConfig& config);

}  // namespace nibble::models
