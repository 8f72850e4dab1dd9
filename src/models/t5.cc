// The config and the modules' names of T5.
#include "base/error.h"
#include "models/config_limits.h"
#include "models/encoder_decoder.h"
#include "models/model_class.h"
#include "models/module_reader.h"

namespace nibble::models {
namespace {

/// feed_forward_proj: "relu", "gated-gelu" (which means gelu_new), "gated-silu", ...
void read_mlp(const ConfigReader& fields, EncoderDecoderConfig& c) {
  const std::string text = fields.text({"feed_forward_proj"}, "relu");
  const std::string where = fields.field("feed_forward_proj");
  const std::size_t dash = text.find('-');
  c.gated = dash != std::string::npos;
  if (c.gated && text.substr(0, dash) != "gated") {
    throw bad_input(where, ": expected ACTIVATION or gated-ACTIVATION, found ", printable(text));
  }
  const std::string name = c.gated ? text.substr(dash + 1) : text;
  c.activation = activation_named(text == "gated-gelu" ? "gelu_new" : name, where);
}

void read_bias(const ConfigReader& fields, EncoderDecoderConfig& c) {
  c.bias_buckets = fields.integer({"relative_attention_num_buckets"}, 4, 1 << 16, 32);
  if (c.bias_buckets % 2 != 0) {
    throw bad_input(fields.field("relative_attention_num_buckets"), " is ", c.bias_buckets,
                    ", which does not split in two directions");
  }
  c.bias_max_distance = fields.integer({"relative_attention_max_distance"}, 2, 1 << 30, 128);
  if (c.bias_max_distance <= c.bias_buckets / 2) {
    throw bad_input(fields.field("relative_attention_max_distance"), " is ", c.bias_max_distance,
                    ", not more than half of the ", c.bias_buckets, " buckets");
  }
}

/// Reads the modules of one model.
class Builder {
 public:
  Builder(const WeightStore& weights, EncoderDecoderConfig config, Exec& exec)
      : read_(weights, exec), c_(std::move(config)) {
    static constexpr std::string_view kNoPrefix[] = {""};
    prefix_ = read_.find_prefix(kNoPrefix, "encoder.block.0.layer.0.layer_norm.weight", c_.architecture);
  }

  EncoderDecoder build() const {
    EncoderDecoder m;
    m.config = c_;
    m.tokens.table = tokens();
    for (std::int64_t i = 0; i < c_.encoder_layers; ++i) m.encoder.push_back(encoder_block(i));
    m.encoder_bias = bias("encoder", true);
    m.encoder_norm = norm(prefix_ + "encoder.final_layer_norm");
    for (std::int64_t i = 0; i < c_.decoder_layers; ++i) m.decoder.push_back(decoder_block(i));
    m.decoder_bias = bias("decoder", false);
    m.decoder_norm = norm(prefix_ + "decoder.final_layer_norm");
    const std::string head = prefix_ + "lm_head";
    if (read_.weights().has_linear(head) || !c_.tie_embeddings) {
      m.head = read_.linear(head, {c_.vocab_size, c_.hidden_size}, false);
    } else {
      m.head.name = head;
      m.head.weight = m.tokens.table;
    }
    return m;
  }

 private:
  std::int64_t inner() const { return c_.num_heads * c_.head_dim; }

  std::string layer(std::string_view side, std::int64_t block, int number) const {
    return cat(prefix_, side, ".block.", block, ".layer.", number, ".");
  }

  nn::Norm norm(const std::string& module) const {
    return read_.norm(module, nn::NormKind::rms, c_.norm_eps, c_.hidden_size);
  }

  QTensor tokens() const {
    std::string name = prefix_ + "shared.weight";
    // Written by some tools instead of the table that both sides share.
    for (const char* other : {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}) {
      if (read_.weights().find(name) == nullptr && read_.weights().find(prefix_ + other) != nullptr) {
        name = prefix_ + other;
      }
    }
    return read_.matrix(name, {c_.vocab_size, c_.hidden_size}, c_.vocab_size);
  }

  nn::RelativeBias bias(std::string_view side, bool both_ways) const {
    nn::RelativeBias made;
    made.heads = c_.num_heads;
    made.buckets = c_.bias_buckets;
    made.max_distance = c_.bias_max_distance;
    made.both_ways = both_ways;
    made.weight = read_.values(layer(side, 0, 0) + "SelfAttention.relative_attention_bias.weight",
                               {c_.bias_buckets, c_.num_heads});
    return made;
  }

  nn::Attention attention(const std::string& at, std::int64_t block) const {
    nn::Attention a;
    a.q = read_.linear(at + "q", {inner(), c_.hidden_size}, false);
    a.k = read_.linear(at + "k", {inner(), c_.hidden_size}, false);
    a.v = read_.linear(at + "v", {inner(), c_.hidden_size}, false);
    a.o = read_.linear(at + "o", {c_.hidden_size, inner()}, false);
    a.heads = a.kv_heads = c_.num_heads;
    a.head_dim = c_.head_dim;
    a.layer = block;
    return a;
  }

  nn::CrossAttention cross(const std::string& at, std::int64_t block) const {
    nn::Attention read = attention(at, block);
    return {std::move(read.q),
            std::move(read.k),
            std::move(read.v),
            std::move(read.o),
            c_.num_heads,
            c_.head_dim,
            block,
            1};
  }

  nn::Mlp mlp(const std::string& at) const {
    nn::Mlp made;
    made.activation = c_.activation;
    if (c_.gated) made.gate = read_.linear(at + "wi_0", {c_.intermediate_size, c_.hidden_size}, false);
    made.up = read_.linear(at + (c_.gated ? "wi_1" : "wi"), {c_.intermediate_size, c_.hidden_size}, false);
    made.down = read_.linear(at + "wo", {c_.hidden_size, c_.intermediate_size}, false);
    return made;
  }

  nn::Block encoder_block(std::int64_t i) const {
    const std::string first = layer("encoder", i, 0), second = layer("encoder", i, 1);
    nn::Block made;
    made.attention_norm = norm(first + "layer_norm");
    made.attention = attention(first + "SelfAttention.", i);
    made.mlp_norm = norm(second + "layer_norm");
    made.mlp = mlp(second + "DenseReluDense.");
    return made;
  }

  nn::CrossBlock decoder_block(std::int64_t i) const {
    const std::string first = layer("decoder", i, 0), second = layer("decoder", i, 1), third = layer("decoder", i, 2);
    nn::CrossBlock made;
    made.attention_norm = norm(first + "layer_norm");
    made.attention = attention(first + "SelfAttention.", i);
    made.cross_norm = norm(second + "layer_norm");
    made.cross = cross(second + "EncDecAttention.", i);
    made.mlp_norm = norm(third + "layer_norm");
    made.mlp = mlp(third + "DenseReluDense.");
    return made;
  }

  ModuleReader read_;
  EncoderDecoderConfig c_;
  std::string prefix_;
};

}  // namespace

EncoderDecoderConfig parse_encoder_decoder_config(const Json& config, std::string_view file) {
  require_shape(config, file, ModelShape::encoder_decoder);
  const ConfigReader fields(config, std::string(file));
  fields.float_type();  // unknown ones are refused
  EncoderDecoderConfig c;
  c.architecture = model_class_of(config, file).hf_class;
  c.vocab_size = fields.integer({"vocab_size"}, 1, kMaxVocab);
  c.hidden_size = fields.integer({"d_model", "hidden_size"}, 1, kMaxWidth);
  c.intermediate_size = fields.integer({"d_ff"}, 1, kMaxWidth * 16);
  c.encoder_layers = fields.integer({"num_layers", "num_hidden_layers"}, 1, kMaxLayers);
  c.decoder_layers = fields.integer({"num_decoder_layers"}, 1, kMaxLayers, c.encoder_layers);
  c.num_heads = fields.integer({"num_heads", "num_attention_heads"}, 1, kMaxHeads);
  c.head_dim = fields.integer({"d_kv", "head_dim"}, 1, kMaxWidth);
  if (c.head_dim * c.num_heads > kMaxWidth * 4) {
    throw bad_input(fields.field("d_kv"), " is ", c.head_dim, ", too large for ", c.num_heads, " heads");
  }
  c.norm_eps = static_cast<float>(fields.number({"layer_norm_epsilon"}, 0, 1, 1e-6));
  read_mlp(fields, c);
  read_bias(fields, c);
  c.tie_embeddings = fields.boolean({"tie_word_embeddings"}, true);
  // Transformers 5 says the scaling in a field of its own; before, tied heads had it and others had not.
  c.scale_output = fields.boolean({"scale_decoder_outputs"}, c.tie_embeddings);
  return c;
}

EncoderDecoder build_encoder_decoder(const WeightStore& weights, Exec& exec) {
  const Checkpoint& checkpoint = weights.checkpoint();
  const std::string file = (checkpoint.folder() / "config.json").string();
  return Builder(weights, parse_encoder_decoder_config(checkpoint.config(), file), exec).build();
}

}  // namespace nibble::models
