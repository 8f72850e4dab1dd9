// From a checkpoint and an ArchSpec to a Decoder: finds the prefix of the tensors' names, checks every shape against
// the config, and copies nothing but what is stored transposed.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "layout/dense/dense.h"
#include "models/decoder.h"
#include "models/module_reader.h"

namespace nibble::models {
namespace {

/// to [cols, rows] = from [rows, cols] (any alignment), in tiles that stay in the cache.
template <class T>
void transpose(const std::byte* from, std::int64_t rows, std::int64_t cols, std::byte* to) {
  constexpr std::int64_t kTile = 32;
  constexpr std::int64_t kSize = sizeof(T);
  for (std::int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (std::int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (std::int64_t c = c0; c < std::min(c0 + kTile, cols); ++c) {
        for (std::int64_t r = r0; r < std::min(r0 + kTile, rows); ++r) {
          std::memcpy(to + (c * rows + r) * kSize, from + (r * cols + c) * kSize, sizeof(T));
        }
      }
    }
  }
}

/// `module` with its holes "{}" filled: the layer, then the expert.
std::string filled(std::string_view module, std::int64_t layer, std::int64_t expert) {
  std::string out(module);
  for (const std::int64_t number : {layer, expert}) {
    if (const std::size_t hole = out.find("{}"); hole != std::string::npos)
      out.replace(hole, 2, std::to_string(number));
  }
  return out;
}

/// The slopes of ALiBi (arXiv:2108.12409): a geometric sequence for a power of two of heads; for other numbers, the
/// sequence of the power below and every other one of the power above.
std::vector<float> alibi_slopes(std::int64_t heads) {
  std::int64_t power = 1;
  while (power * 2 <= heads) power *= 2;
  const auto base_of = [](std::int64_t count) {
    return static_cast<double>(static_cast<float>(std::exp2(-8.0 / static_cast<double>(count))));
  };
  std::vector<float> slopes;
  for (std::int64_t i = 1; i <= power; ++i) {
    slopes.push_back(static_cast<float>(std::pow(base_of(power), static_cast<double>(i))));
  }
  for (std::int64_t i = 1; static_cast<std::int64_t>(slopes.size()) < heads; i += 2) {
    slopes.push_back(static_cast<float>(std::pow(base_of(2 * power), static_cast<double>(i))));
  }
  return slopes;
}

class Builder {
 public:
  Builder(const WeightStore& weights, const ArchSpec& arch, ModelConfig config, Exec& exec)
      : weights_(weights), reader_(weights, exec), arch_(arch), config_(std::move(config)) {
    find_prefix();
    if (arch_.positions == Positions::alibi) alibi_slopes_ = alibi_slopes(config_.num_heads);
  }

  Decoder build() {
    Decoder d;
    d.config = config_;
    embeddings(d);
    if (config_.embed_size != config_.hidden_size) {
      d.project_in = linear(Slot::project_in, -1, {config_.hidden_size, config_.embed_size}, false);
      d.project_out = linear(Slot::project_out, -1, {config_.embed_size, config_.hidden_size}, false);
    }
    for (std::int64_t layer = 0; layer < config_.num_layers; ++layer) d.blocks.push_back(block(layer));
    if (config_.final_norm) d.final_norm = norm(Slot::final_norm, -1, config_.hidden_size);
    head(d);
    return d;
  }

 private:
  using Size = ModuleReader::Size;

  /// The first of the slot's names that the checkpoint has, else the usual one.
  std::string module_name(Slot slot, std::int64_t layer, std::int64_t expert = 0) const {
    std::string usual;
    for (const Name& name : arch_.names) {
      if (name.slot != slot) continue;
      const std::string module = filled(name.module, layer, expert);
      if (weights_.has_linear(prefix_ + module)) return prefix_ + module;
      if (slot == Slot::head && weights_.has_linear(wrap_ + module)) return wrap_ + module;
      if (usual.empty()) usual = (slot == Slot::head ? wrap_ : prefix_) + module;
    }
    check(!usual.empty(), "ArchSpec has no name for a module that it needs");
    return usual;
  }

  void find_prefix() {
    const std::string_view first_norm = arch_.find(Slot::attention_norm)->module;
    std::string probe(first_norm);
    probe.replace(probe.find("{}"), 2, "0");
    const std::string tokens(arch_.find(Slot::tokens)->module);
    for (const std::string_view wrap : kWraps) {
      for (const std::string_view base : arch_.prefixes) {
        const std::string prefix = std::string(wrap) + std::string(base);
        if (weights_.find(prefix + tokens + ".weight") == nullptr &&
            weights_.find(prefix + probe + ".weight") == nullptr)
          continue;
        wrap_ = wrap;
        prefix_ = prefix;
        return;
      }
    }
    throw bad_input(reader_.place(), ": tensor ", arch_.prefixes.front(), tokens,
                    ".weight is missing (nor is there one of ",
                    "that name without or with another prefix): this is no ", arch_.hf_class, " checkpoint");
  }

  nn::Norm norm(Slot slot, std::int64_t layer, std::int64_t size) const {
    if (config_.norm_affine) return reader_.norm(module_name(slot, layer), arch_.norm, config_.norm_eps, size);
    nn::Norm made;
    made.kind = arch_.norm;
    made.eps = config_.norm_eps;
    made.size = size;
    return made;
  }

  nn::Linear linear(Slot slot, std::int64_t layer, Size size, bool bias) const {
    const std::string module = module_name(slot, layer);
    const bool is_transposed = arch_.transposed && layer >= 0 && weights_.find(module + ".weight") != nullptr;
    return is_transposed ? reader_.linear(module, transposed(module, size), size, bias)
                         : reader_.linear(module, size, bias);
  }

  /// A plain weight stored [inputs, outputs], copied the other way round.
  LinearWeights transposed(const std::string& module, Size size) const {
    const View& from = reader_.checked(module + ".weight", {size.inputs, size.outputs});
    Tensor to({size.outputs, size.inputs}, from.dtype());
    if (size_of(from.dtype()) == 2) {
      transpose<std::uint16_t>(from.data(), size.inputs, size.outputs, to.data());
    } else {
      transpose<std::uint32_t>(from.data(), size.inputs, size.outputs, to.data());
    }
    LinearWeights made;
    made.weight = dense::make(to, to.owner());
    if (const View* bias = weights_.find(module + ".bias")) made.bias = *bias;
    return made;
  }

  QTensor table(Slot slot, std::int64_t rows, std::int64_t width) const {
    return reader_.matrix(module_name(slot, -1) + ".weight", {rows, width}, rows);
  }

  void embeddings(Decoder& d) const {
    d.tokens.name = module_name(Slot::tokens, -1);
    if (weights_.find(d.tokens.name + ".weight") == nullptr && config_.tie_embeddings && has_head()) {
      d.tokens.table = linear(Slot::head, -1, {config_.vocab_size, config_.embed_size}, false).weight;
    } else {
      d.tokens.table = table(Slot::tokens, config_.vocab_size, config_.embed_size);
    }
    if (arch_.find(Slot::embedding_norm) != nullptr) {
      d.embedding_norm = norm(Slot::embedding_norm, -1, config_.hidden_size);
    }
    if (arch_.positions == Positions::rotary) d.rope.emplace(config_.rope, config_.head_dim);
    if (arch_.positions == Positions::learned) {
      d.position_offset = arch_.position_offset;
      d.positions.name = module_name(Slot::positions, -1);
      d.positions.table = table(Slot::positions, config_.max_positions + arch_.position_offset, config_.hidden_size);
    }
  }

  bool has_head() const { return weights_.has_linear(module_name(Slot::head, -1)); }

  void head(Decoder& d) const {
    if (has_head() || !config_.tie_embeddings) {
      d.head = linear(Slot::head, -1, {config_.vocab_size, config_.embed_size}, false);
    } else {
      d.head.name = module_name(Slot::head, -1);
      d.head.weight = d.tokens.table;
    }
    d.head_is_tied = d.head.weight.part[0].data() == d.tokens.table.part[0].data();
  }

  nn::Block block(std::int64_t layer) const {
    nn::Block made;
    made.run = config_.block;
    made.norm_first = config_.norm_first;
    made.attention_norm = norm(Slot::attention_norm, layer, config_.hidden_size);
    made.attention = attention(layer);
    made.mlp_norm = norm(Slot::mlp_norm, layer, config_.hidden_size);
    if (config_.num_experts > 0) {
      made.moe = moe(layer);
    } else {
      made.mlp = mlp(layer);
    }
    return made;
  }

  nn::Attention attention(std::int64_t layer) const {
    const auto at = static_cast<std::size_t>(layer);
    const std::int64_t hidden = config_.hidden_size, q_width = config_.num_heads * config_.head_dim;
    const std::int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    nn::Attention a;
    a.qkv_order = arch_.qkv_order;
    if (arch_.find(Slot::qkv) != nullptr) {
      a.qkv = linear(Slot::qkv, layer, {q_width + 2 * kv_width, hidden}, config_.qkv_bias);
    } else {
      a.q = linear(Slot::q, layer, {q_width, hidden}, config_.qkv_bias);
      a.k = linear(Slot::k, layer, {kv_width, hidden}, config_.qkv_bias);
      a.v = linear(Slot::v, layer, {kv_width, hidden}, config_.qkv_bias);
    }
    a.o = linear(Slot::o, layer, {hidden, q_width}, config_.out_bias);
    if (arch_.find(Slot::q_norm) != nullptr) {
      a.q_norm = norm(Slot::q_norm, layer, config_.head_dim);
      a.k_norm = norm(Slot::k_norm, layer, config_.head_dim);
    }
    a.heads = config_.num_heads;
    a.kv_heads = config_.num_kv_heads;
    a.head_dim = config_.head_dim;
    a.layer = layer;
    a.scale = config_.attention_scale[at];
    a.sliding_window = config_.sliding_window[at];
    a.alibi_slopes = alibi_slopes_;
    return a;
  }

  nn::Mlp mlp(std::int64_t layer) const {
    const Size widening{config_.intermediate_size, config_.hidden_size};
    nn::Mlp made;
    made.activation = config_.activation;
    if (arch_.find(Slot::gate) != nullptr) made.gate = linear(Slot::gate, layer, widening, config_.mlp_bias);
    made.up = linear(Slot::up, layer, widening, config_.mlp_bias);
    made.down = linear(Slot::down, layer, {widening.inputs, widening.outputs}, config_.mlp_bias);
    if (arch_.find(Slot::activation) != nullptr) {
      made.activation_name = module_name(Slot::activation, layer);
      const std::string scales = made.activation_name + ".scales";
      if (weights_.find(scales) != nullptr) made.activation_scales = reader_.values(scales, {widening.outputs});
    }
    return made;
  }

  nn::Moe moe(std::int64_t layer) const {
    const Size widening{config_.intermediate_size, config_.hidden_size};
    const std::string gate_up = prefix_ + filled(arch_.find(Slot::experts_gate_up)->module, layer, 0);
    const bool stacked = weights_.find(gate_up) != nullptr;
    nn::Moe made;
    made.top_k = config_.experts_per_token;
    made.router = linear(Slot::router, layer, {config_.num_experts, config_.hidden_size}, false);
    for (std::int64_t e = 0; e < config_.num_experts; ++e) {
      nn::Mlp& expert = made.experts.emplace_back();
      expert.activation = config_.activation;
      if (stacked) {
        const std::string down = prefix_ + filled(arch_.find(Slot::experts_down)->module, layer, 0);
        expert.gate = expert_part(gate_up, e, 2, widening);
        expert.up = expert_part(gate_up, e, 2, widening, 1);
        expert.down = expert_part(down, e, 1, {widening.inputs, widening.outputs});
        continue;
      }
      expert.gate = reader_.linear(module_name(Slot::gate, layer, e), widening, false);
      expert.up = reader_.linear(module_name(Slot::up, layer, e), widening, false);
      expert.down = reader_.linear(module_name(Slot::down, layer, e), {widening.inputs, widening.outputs}, false);
    }
    return made;
  }

  /// One of the `parts` matrices that `tensor` [experts, parts * outputs, inputs] holds of each expert.
  nn::Linear expert_part(const std::string& tensor, std::int64_t expert, std::int64_t parts, Size size,
                         std::int64_t part = 0) const {
    const View& all = reader_.checked(tensor, {config_.num_experts, parts * size.outputs, size.inputs});
    const View of_expert = all.rows(expert, expert + 1).reshaped({parts * size.outputs, size.inputs});
    nn::Linear made;
    made.name = cat(tensor, ".", expert, parts > 1 ? (part == 0 ? ".gate" : ".up") : "");
    made.weight = dense::make(of_expert.rows(part * size.outputs, (part + 1) * size.outputs), weights_.owner());
    return made;
  }

  const WeightStore& weights_;
  ModuleReader reader_;
  const ArchSpec& arch_;
  ModelConfig config_;
  std::string wrap_, prefix_;
  std::vector<float> alibi_slopes_;  ///< [num_heads], or empty
};

}  // namespace

Decoder build_decoder(const WeightStore& weights, Exec& exec) {
  const Checkpoint& checkpoint = weights.checkpoint();
  const ModelConfig config = parse_model_config(checkpoint.config(), (checkpoint.folder() / "config.json").string());
  return Builder(weights, *find_arch(config.architecture), config, exec).build();
}

}  // namespace nibble::models
