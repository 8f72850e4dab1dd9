// config.json as one checked value, whatever family and dialect wrote it: Transformers 4 (torch_dtype, rope_theta,
// rope_scaling) or 5 (dtype, rope_parameters), and the spellings of older families (n_embd, n_head, ffn_dim, ...).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "device/device.h"
#include "nn/block.h"
#include "nn/rope.h"

namespace nibble::models {

struct ModelConfig {
  std::string architecture;  ///< "LlamaForCausalLM": an ArchSpec's hf_class
  std::optional<DType> dtype;

  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t embed_size = 0;  ///< width of a token embedding; hidden_size unless projections lie between (opt-350m)
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_positions = 0;   ///< max_position_embeddings
  std::int64_t context_length = 0;  ///< positions the model is meant for, rope stretching included

  Activation activation = Activation::silu;
  float norm_eps = 1e-5f;
  bool norm_first = true;   ///< false: post-LayerNorm
  bool norm_affine = true;  ///< norms have weights
  bool final_norm = true;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool tie_embeddings = false;
  std::int64_t num_experts = 0;        ///< mixture of experts in place of the MLP; 0: none
  std::int64_t experts_per_token = 0;  ///< at most num_experts
  nn::BlockForward block = nn::standard_block;

  nn::RopeConfig rope;                       ///< where positions are rotary
  std::vector<std::int64_t> sliding_window;  ///< by layer; 0: full attention
  std::vector<float> attention_scale;        ///< by layer: q . k is multiplied by it
};

/// Reads and range-checks `config`. `file` begins every message. Throws Error(bad_input) naming the field; an unknown
/// architecture is answered with the list of those supported.
ModelConfig parse_model_config(const Json& config, std::string_view file);

/// The class that `config` names, without checking anything else: architectures[0] as written, else one known for its
/// model_type, else "".
std::string architecture_of(const Json& config);

}  // namespace nibble::models
