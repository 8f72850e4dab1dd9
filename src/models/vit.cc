// The config and the modules' names of ViT (Dosovitskiy et al. 2020, arXiv:2010.11929).
#include <cmath>

#include "base/error.h"
#include "models/config_limits.h"
#include "models/encoder.h"
#include "models/module_reader.h"

namespace nibble::models {
namespace {

constexpr std::int64_t kMaxSide = 1 << 14;

struct Sides {
  std::int64_t height, width;
};

/// One number for both sides, or [height, width].
Sides read_sides(const ConfigReader& fields, std::string_view key, std::int64_t otherwise) {
  const Json* value = fields.find({key});
  if (value == nullptr || !value->is_array()) {
    const std::int64_t side = fields.integer({key}, 1, kMaxSide, otherwise);
    return {side, side};
  }
  const std::string where = fields.field(key);
  const auto& list = value->array(where);
  if (list.size() != 2) throw bad_input(where, ": expected a number or [height, width]");
  const Sides sides{list[0].integer(where), list[1].integer(where)};
  for (const std::int64_t side : {sides.height, sides.width}) {
    if (side < 1 || side > kMaxSide) throw bad_input(where, " is ", side, ", which is not between 1 and ", kMaxSide);
  }
  return sides;
}

/// Of a classifier: the labels that are named, else a number of them, else Transformers' default.
std::int64_t read_classes(const ConfigReader& fields) {
  if (const Json* labels = fields.find({"id2label"})) {
    const std::size_t count = labels->object(fields.field("id2label")).size();
    if (count == 0) throw bad_input(fields.field("id2label"), " is empty");
    return static_cast<std::int64_t>(count);
  }
  return fields.integer({"num_labels"}, 1, kMaxVocab, 2);
}

/// Module names of one layer. Transformers 5 has names of its own in memory, which quantized checkpoints may show.
struct LayerNames {
  std::string_view layer, q, k, v, o, up, down;
};
constexpr LayerNames kFiled{"encoder.layer.",
                            "attention.attention.query",
                            "attention.attention.key",
                            "attention.attention.value",
                            "attention.output.dense",
                            "intermediate.dense",
                            "output.dense"};
constexpr LayerNames kInMemory{"layers.",          "attention.q_proj", "attention.k_proj", "attention.v_proj",
                               "attention.o_proj", "mlp.fc1",          "mlp.fc2"};

nn::Block read_block(const ModuleReader& read, const EncoderConfig& c, const LayerNames& names, const std::string& at) {
  const std::int64_t hidden = c.hidden_size, inner = c.intermediate_size;
  nn::Block block;
  block.attention_norm = read.norm(at + "layernorm_before", nn::NormKind::layer, c.norm_eps, hidden);
  block.mlp_norm = read.norm(at + "layernorm_after", nn::NormKind::layer, c.norm_eps, hidden);
  nn::Attention& a = block.attention;
  a.q = read.linear(cat(at, names.q), {hidden, hidden}, c.qkv_bias);
  a.k = read.linear(cat(at, names.k), {hidden, hidden}, c.qkv_bias);
  a.v = read.linear(cat(at, names.v), {hidden, hidden}, c.qkv_bias);
  a.o = read.linear(cat(at, names.o), {hidden, hidden}, true);
  a.heads = a.kv_heads = c.num_heads;
  a.head_dim = hidden / c.num_heads;
  a.scale = 1 / std::sqrt(static_cast<float>(a.head_dim));
  block.mlp.activation = c.activation;
  block.mlp.up = read.linear(cat(at, names.up), {inner, hidden}, true);
  block.mlp.down = read.linear(cat(at, names.down), {hidden, inner}, true);
  return block;
}

/// A convolution whose steps are as wide as its window is a product with each patch.
nn::Linear read_patches(const ModuleReader& read, const EncoderConfig& c, const std::string& conv) {
  const Shape window{c.hidden_size, c.channels, c.patch_height, c.patch_width};
  const std::int64_t inputs = c.channels * c.patch_height * c.patch_width;
  const SchemeReader* scheme = read.weights().reader();
  if (scheme != nullptr && scheme->has(conv)) return read.linear(conv, {c.hidden_size, inputs}, true);  // Quanto
  nn::Linear made;
  made.name = conv;
  made.weight = read.matrix(conv + ".weight", window, c.hidden_size);
  made.bias = read.values(conv + ".bias", {c.hidden_size});
  return made;
}

}  // namespace

void read_vit_config(const ConfigReader& fields, EncoderConfig& c) {
  const Sides image = read_sides(fields, "image_size", 224), patch = read_sides(fields, "patch_size", 16);
  c.channels = fields.integer({"num_channels"}, 1, kMaxSide, 3);
  if (image.height % patch.height != 0 || image.width % patch.width != 0) {
    throw bad_input(fields.field("patch_size"), ": patches of ", patch.height, " x ", patch.width,
                    " do not divide images of ", image.height, " x ", image.width);
  }
  c.height = image.height;
  c.width = image.width;
  c.patch_height = patch.height;
  c.patch_width = patch.width;
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 28;
  if (c.image_elements() > kMaxElements) {
    throw bad_input(fields.field("image_size"), ": images of ", c.channels, " x ", c.height, " x ", c.width,
                    " pixels are too large");
  }
  c.qkv_bias = fields.boolean({"qkv_bias"}, true);
  c.pooler_size = fields.integer({"pooler_output_size"}, 0, kMaxWidth, c.hidden_size);
  if (c.pooler_size == 0) c.pooler_size = c.hidden_size;  // as Python's `or`
  c.pooler_activation = fields.activation({"pooler_act"}, "tanh");
  if (c.architecture == "ViTForImageClassification") c.classes = read_classes(fields);
}

Encoder build_vit(const WeightStore& weights, const EncoderConfig& c, Exec& exec) {
  const ModuleReader read(weights, exec);
  static constexpr std::string_view kPrefixes[] = {"vit.", ""};
  const std::string prefix = read.find_prefix(kPrefixes, "embeddings.cls_token", c.architecture);
  const std::string at = prefix + "embeddings.";
  Encoder m;
  m.config = c;
  m.first = read.values(at + "cls_token", {1, 1, c.hidden_size});
  m.positions.table =
      read.matrix(at + "position_embeddings", {1, c.image_positions(), c.hidden_size}, c.image_positions());
  m.patches = read_patches(read, c, at + "patch_embeddings.projection");
  const bool in_memory = weights.find(cat(prefix, kInMemory.layer, "0.layernorm_before.weight")) != nullptr;
  const LayerNames& names = in_memory ? kInMemory : kFiled;
  for (std::int64_t i = 0; i < c.num_layers; ++i) {
    m.blocks.push_back(read_block(read, c, names, cat(prefix, names.layer, i, ".")));
  }
  m.final_norm = read.norm(prefix + "layernorm", nn::NormKind::layer, c.norm_eps, c.hidden_size);
  if (weights.has_linear(prefix + "pooler.dense") && c.classes == 0) {
    m.pooler = read.linear(prefix + "pooler.dense", {c.pooler_size, c.hidden_size}, true);
  }
  if (c.classes > 0) {
    const std::string wrap = prefix.ends_with("vit.") ? prefix.substr(0, prefix.size() - 4) : prefix;
    m.classifier = read.linear(wrap + "classifier", {c.classes, c.hidden_size}, true);
  }
  return m;
}

}  // namespace nibble::models
