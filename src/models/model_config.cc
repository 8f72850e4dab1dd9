#include "models/model_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/arch.h"
#include "models/config_limits.h"
#include "models/model_class.h"

namespace nibble::models {
namespace {

nn::RopeKind rope_kind(const ConfigReader& fields) {
  const std::string name = fields.text({"rope_type", "type"}, "default");
  if (name == "default") return nn::RopeKind::standard;
  if (name == "linear") return nn::RopeKind::linear;
  if (name == "dynamic") return nn::RopeKind::dynamic;
  if (name == "llama3") return nn::RopeKind::llama3;
  if (name == "yarn") return nn::RopeKind::yarn;
  throw bad_input(fields.field("rope_type"), ": ", printable(name),
                  " is not supported; supported are default, linear, dynamic, llama3, yarn");
}

/// YaRN's temperature, as Transformers derives it when the file does not give it.
double yarn_attention_factor(const ConfigReader& fields, double factor) {
  if (fields.has({"attention_factor"})) return fields.number({"attention_factor"}, 0, 1e6);
  const auto mscale = [&](double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0; };
  const double top = fields.number({"mscale"}, 0, 1e6, 0), bottom = fields.number({"mscale_all_dim"}, 0, 1e6, 0);
  return top != 0 && bottom != 0 ? mscale(top) / mscale(bottom) : mscale(1);
}

void read_llama3(const ConfigReader& fields, nn::RopeConfig& rope) {
  rope.low_freq_factor = fields.number({"low_freq_factor"}, 1e-6, 1e6);
  rope.high_freq_factor = fields.number({"high_freq_factor"}, 1e-6, 1e6);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    throw bad_input(fields.field("high_freq_factor"), " must be greater than low_freq_factor");
  }
}

void read_yarn(const ConfigReader& fields, nn::RopeConfig& rope) {
  const auto or_default = [&](std::string_view key, double otherwise) {
    const double value = fields.number({key}, 0, 1e6, otherwise);
    return value == 0 ? otherwise : value;  // as Python's `or`
  };
  rope.beta_fast = or_default("beta_fast", 32);
  rope.beta_slow = or_default("beta_slow", 1);
  rope.truncate = fields.boolean({"truncate"}, true);
  rope.attention_factor = yarn_attention_factor(fields, rope.factor);
  if (rope.theta <= 1) throw bad_input(fields.field("rope_theta"), " must be greater than 1 for yarn");
}

/// rope_parameters (Transformers 5), else rope_theta and rope_scaling (4).
nn::RopeConfig read_rope(const ConfigReader& top, const ArchSpec& arch, const ModelConfig& c) {
  static const Json kNone = Json::Object{};
  const Json* nested = top.find({"rope_scaling"});
  std::string_view name = "rope_scaling";
  // Transformers 5 reads rope_scaling first too, and lets an empty one count as absent.
  if (nested == nullptr || (nested->is_object() && nested->object("").empty())) {
    nested = top.find({"rope_parameters"});
    name = "rope_parameters";
  }
  if (nested == nullptr) nested = &kNone;
  if (!nested->is_object()) throw bad_input(top.field(name), ": expected an object");
  const ConfigReader fields(*nested, top.field(name));
  if (fields.has({"full_attention", "sliding_attention"})) {
    throw bad_input(top.field(name), ": parameters for each type of layer are not supported in ", c.architecture);
  }

  nn::RopeConfig rope;
  rope.kind = rope_kind(fields);
  rope.max_positions = c.max_positions;
  const ConfigReader& theta_at = fields.has(arch.keys.rope_theta) ? fields : top;
  rope.theta = theta_at.number(arch.keys.rope_theta, 1e-3, 1e12, arch.defaults.rope_theta);
  const ConfigReader& partial_at = fields.has(arch.keys.rope_partial) ? fields : top;
  rope.partial = partial_at.number(arch.keys.rope_partial, 1e-6, 1, arch.defaults.rope_partial);
  const ConfigReader& original_at = top.has({"original_max_position_embeddings"}) ? top : fields;
  rope.original_positions =
      original_at.integer({"original_max_position_embeddings"}, 1, kMaxPositions, c.max_positions);
  if (rope.kind == nn::RopeKind::standard) return rope;
  std::optional<double> factor;
  if (rope.kind == nn::RopeKind::yarn) {
    factor = static_cast<double>(c.max_positions) / static_cast<double>(rope.original_positions);
  }
  rope.factor = fields.number({"factor"}, 1e-3, 1e6, factor);
  if (rope.kind == nn::RopeKind::llama3) read_llama3(fields, rope);
  if (rope.kind == nn::RopeKind::yarn) read_yarn(fields, rope);
  return rope;
}

void check_rope(const ConfigReader& fields, const ModelConfig& c) {
  const auto rotated = static_cast<std::int64_t>(static_cast<double>(c.head_dim) * c.rope.partial);
  const std::int64_t least = c.rope.kind == nn::RopeKind::dynamic ? 4 : 2;
  if (rotated % 2 != 0 || rotated < least) {
    throw bad_input(fields.field("head_dim"), ": rotary positions need an even number of at least ", least,
                    " dimensions, not ", rotated, " of ", c.head_dim);
  }
}

std::int64_t stretched_context(const ModelConfig& c) {
  const nn::RopeConfig& rope = c.rope;
  const auto times = [&](std::int64_t positions) {
    return std::min(kMaxPositions, static_cast<std::int64_t>(static_cast<double>(positions) * rope.factor));
  };
  switch (rope.kind) {
    case nn::RopeKind::linear:
    case nn::RopeKind::dynamic: return std::max(c.max_positions, times(c.max_positions));
    case nn::RopeKind::yarn: return std::max(c.max_positions, times(rope.original_positions));
    default: return c.max_positions;
  }
}

void read_sizes(const ConfigReader& fields, const ArchSpec& arch, ModelConfig& c) {
  const ConfigKeys& keys = arch.keys;
  c.vocab_size = fields.integer({"vocab_size"}, 1, kMaxVocab);
  c.hidden_size = c.embed_size = fields.integer(keys.hidden_size, 1, kMaxWidth);
  c.num_layers = fields.integer(keys.num_layers, 1, kMaxLayers);
  c.num_heads = fields.integer(keys.num_heads, 1, kMaxHeads);
  std::optional<std::int64_t> inner;
  if (arch.defaults.intermediate_factor > 0) inner = c.hidden_size * arch.defaults.intermediate_factor;
  c.intermediate_size = fields.integer(keys.intermediate_size, 1, kMaxWidth * 16, inner);
  c.num_kv_heads = fields.integer({"num_key_value_heads"}, 1, kMaxHeads, c.num_heads);
  if (c.num_heads % c.num_kv_heads != 0) {
    throw bad_input(fields.field("num_key_value_heads"), " is ", c.num_kv_heads, ", which does not divide the ",
                    c.num_heads, " attention heads");
  }
  const bool derived = arch.defaults.head_dim == 0 && !fields.has({"head_dim"});
  if (derived && c.hidden_size % c.num_heads != 0) {
    throw bad_input(fields.field(keys.num_heads.front()), " is ", c.num_heads, ", which does not divide ",
                    keys.hidden_size.front(), " ", c.hidden_size);
  }
  c.head_dim =
      derived ? c.hidden_size / c.num_heads : fields.integer({"head_dim"}, 1, kMaxWidth, arch.defaults.head_dim);
  if (c.head_dim * c.num_heads > kMaxWidth * 4) {
    throw bad_input(fields.field("head_dim"), " is ", c.head_dim, ", too large for ", c.num_heads, " heads");
  }
  c.max_positions = fields.integer(keys.max_positions, 1, kMaxPositions, arch.defaults.max_positions);
}

}  // namespace

std::string architecture_of(const Json& config) {
  const Json* list = config.get("architectures");
  if (list != nullptr && list->is_array() && !list->array("").empty() && list->array("")[0].is_string()) {
    return list->array("")[0].string("");
  }
  const Json* type = config.get("model_type");
  if (type == nullptr || !type->is_string()) return "";
  for (const ModelClass& known : all_model_classes()) {
    if (known.model_type == type->string("")) return std::string(known.hf_class);
  }
  return "";
}

ModelConfig parse_model_config(const Json& config, std::string_view file) {
  require_shape(config, file, ModelShape::decoder);
  const ArchSpec& arch = *find_arch(model_class_of(config, file).hf_class);
  const ConfigReader fields(config, std::string(file));
  ModelConfig c;
  c.architecture = arch.hf_class;
  c.dtype = fields.float_type();
  read_sizes(fields, arch, c);
  c.activation = fields.activation(arch.keys.activation, arch.defaults.activation);
  c.norm_eps = static_cast<float>(fields.number(arch.keys.norm_eps, 0, 1, arch.defaults.norm_eps));
  c.tie_embeddings = fields.boolean({"tie_word_embeddings"}, arch.defaults.tie_embeddings);
  c.sliding_window.assign(static_cast<std::size_t>(c.num_layers), 0);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  c.attention_scale.assign(static_cast<std::size_t>(c.num_layers), static_cast<float>(scale));
  c.context_length = c.max_positions;
  c.block = arch.block;
  if (arch.positions == Positions::rotary) {
    c.rope = read_rope(fields, arch, c);
    check_rope(fields, c);
    c.context_length = stretched_context(c);
  }
  if (arch.configure != nullptr) arch.configure(fields, c);
  return c;
}

}  // namespace nibble::models
