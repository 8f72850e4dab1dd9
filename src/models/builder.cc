// From a checkpoint and an ArchSpec to a Decoder: finds the prefix of the tensors' names, checks every shape against
// the config, and copies nothing but what is stored transposed.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "layout/dense/dense.h"
#include "models/decoder.h"

namespace nibble::models {
namespace {

/// What a checkpoint may be wrapped in: torch.nn.DataParallel, torch.compile.
constexpr std::string_view kWraps[] = {"", "module.", "_orig_mod."};

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

class Builder {
 public:
  Builder(const WeightStore& weights, const ArchSpec& arch, ModelConfig config, Exec& exec)
      : weights_(weights), arch_(arch), config_(std::move(config)), exec_(exec) {
    find_prefix();
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
  struct Size {
    std::int64_t outputs, inputs;
  };

  /// The folder, for messages.
  std::string place() const { return weights_.checkpoint().folder().string(); }

  std::string module_name(Slot slot, std::int64_t layer) const {
    const Name* name = arch_.find(slot);
    check(name != nullptr, "ArchSpec has no name for a module that it needs");
    std::string module(name->module);
    if (const std::size_t hole = module.find("{}"); hole != std::string::npos) {
      module.replace(hole, 2, std::to_string(layer));
    }
    if (slot != Slot::head) return prefix_ + module;
    return weights_.has_linear(prefix_ + module) ? prefix_ + module : wrap_ + module;
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
    throw bad_input(place(), ": tensor ", arch_.prefixes.front(), tokens, ".weight is missing (nor is there one of ",
                    "that name without or with another prefix): this is no ", arch_.hf_class, " checkpoint");
  }

  void check_shape(const std::string& tensor, const Shape& found, const Shape& expected) const {
    if (found == expected) return;
    throw bad_input(place(), ": tensor ", tensor, " has shape ", to_string(found), ", but config.json asks for ",
                    to_string(expected));
  }

  void check_float(const std::string& tensor, const View& view) const {
    const DType t = view.dtype();
    if (t == DType::f32 || t == DType::f16 || t == DType::bf16) return;
    throw bad_input(place(), ": tensor ", tensor, ": expected f32, f16 or bf16, found ", name_of(t));
  }

  std::vector<float> vector(const std::string& tensor, std::int64_t size) const {
    const View& view = weights_.at(tensor);
    check_shape(tensor, view.shape(), {size});
    check_float(tensor, view);
    return view.to_f32();
  }

  nn::Norm norm(Slot slot, std::int64_t layer, std::int64_t size) const {
    nn::Norm made;
    made.kind = arch_.norm;
    made.eps = config_.norm_eps;
    made.size = size;
    if (!config_.norm_affine) return made;
    const std::string name = module_name(slot, layer);
    made.weight = vector(name + ".weight", size);
    if (arch_.norm == nn::NormKind::layer) made.bias = vector(name + ".bias", size);
    return made;
  }

  nn::Linear linear(Slot slot, std::int64_t layer, Size size, bool bias) const {
    nn::Linear made;
    made.name = module_name(slot, layer);
    LinearWeights read = arch_.transposed && layer >= 0 && weights_.find(made.name + ".weight") != nullptr
                             ? transposed(made.name, size)
                             : weights_.linear(made.name, exec_, {size.outputs, size.inputs});
    check_shape(made.name + ".weight", {read.weight.rows, read.weight.cols}, {size.outputs, size.inputs});
    made.weight = std::move(read.weight);
    made.activation = read.activation;
    // A quantized linear applies the bias that it stores even where the family has none, as its library does.
    if (bias || (read.record != nullptr && read.bias)) {
      if (!read.bias) throw bad_input(place(), ": tensor ", made.name, ".bias is missing");
      check_shape(made.name + ".bias", read.bias->shape(), {size.outputs});
      made.bias = read.bias->to_f32();
    }
    return made;
  }

  /// A plain weight stored [inputs, outputs], copied the other way round.
  LinearWeights transposed(const std::string& module, Size size) const {
    const View& from = weights_.at(module + ".weight");
    check_shape(module + ".weight", from.shape(), {size.inputs, size.outputs});
    check_float(module + ".weight", from);
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
    const std::string name = module_name(slot, -1) + ".weight";
    const View& view = weights_.at(name);
    check_shape(name, view.shape(), {rows, width});
    check_float(name, view);
    return dense::make(view, weights_.owner());
  }

  void embeddings(Decoder& d) const {
    d.tokens.name = module_name(Slot::tokens, -1);
    if (weights_.find(d.tokens.name + ".weight") == nullptr && config_.tie_embeddings && has_head()) {
      d.tokens.table = linear(Slot::head, -1, {config_.vocab_size, config_.embed_size}, false).weight;
    } else {
      d.tokens.table = table(Slot::tokens, config_.vocab_size, config_.embed_size);
    }
    if (arch_.rotary) {
      d.rope.emplace(config_.rope, config_.head_dim);
    } else {
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
    const auto at = static_cast<std::size_t>(layer);
    const std::int64_t hidden = config_.hidden_size, q_width = config_.num_heads * config_.head_dim;
    const std::int64_t kv_width = config_.num_kv_heads * config_.head_dim;
    nn::Block made;
    made.run = arch_.block;
    made.norm_first = config_.norm_first;
    made.attention_norm = norm(Slot::attention_norm, layer, hidden);
    made.mlp_norm = norm(Slot::mlp_norm, layer, hidden);

    nn::Attention& a = made.attention;
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

    nn::Mlp& mlp = made.mlp;
    mlp.activation = config_.activation;
    if (arch_.find(Slot::gate) != nullptr) {
      mlp.gate = linear(Slot::gate, layer, {config_.intermediate_size, hidden}, config_.mlp_bias);
    }
    mlp.up = linear(Slot::up, layer, {config_.intermediate_size, hidden}, config_.mlp_bias);
    mlp.down = linear(Slot::down, layer, {hidden, config_.intermediate_size}, config_.mlp_bias);
    return made;
  }

  const WeightStore& weights_;
  const ArchSpec& arch_;
  ModelConfig config_;
  Exec& exec_;
  std::string wrap_, prefix_;
};

}  // namespace

Decoder build_decoder(const WeightStore& weights, Exec& exec) {
  const Checkpoint& checkpoint = weights.checkpoint();
  const ModelConfig config = parse_model_config(checkpoint.config(), (checkpoint.folder() / "config.json").string());
  return Builder(weights, *find_arch(config.architecture), config, exec).build();
}

}  // namespace nibble::models
