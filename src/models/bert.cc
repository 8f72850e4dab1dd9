// The config and the modules' names of BERT (Devlin et al. 2018, arXiv:1810.04805).
#include <cmath>

#include "base/error.h"
#include "models/config_limits.h"
#include "models/encoder.h"
#include "models/module_reader.h"

namespace nibble::models {

void read_bert_config(const ConfigReader& fields, EncoderConfig& c) {
  c.vocab_size = fields.integer({"vocab_size"}, 1, kMaxVocab);
  c.max_positions = fields.integer({"max_position_embeddings"}, 1, kMaxVocab, 512);
  c.token_types = fields.integer({"type_vocab_size"}, 1, kMaxVocab, 2);
  const std::string positions = fields.text({"position_embedding_type"}, "absolute");
  if (positions != "absolute") {
    throw bad_input(fields.field("position_embedding_type"), ": ", printable(positions),
                    " is not supported; supported is absolute");
  }
  for (const std::string_view key : {"is_decoder", "add_cross_attention"}) {
    if (fields.boolean({key}, false)) throw bad_input(fields.field(key), ": a BERT that decodes is not supported");
  }
}

Encoder build_bert(const WeightStore& weights, const EncoderConfig& c, Exec& exec) {
  const ModuleReader read(weights, exec);
  static constexpr std::string_view kPrefixes[] = {"bert.", ""};
  const std::string prefix = read.find_prefix(kPrefixes, "embeddings.word_embeddings.weight", c.architecture);
  const std::int64_t hidden = c.hidden_size, inner = c.intermediate_size;
  const auto norm = [&](const std::string& module) {
    return read.norm(module, nn::NormKind::layer, c.norm_eps, hidden);
  };
  Encoder m;
  m.config = c;
  const std::string tables = prefix + "embeddings.";
  m.tokens.table = read.matrix(tables + "word_embeddings.weight", {c.vocab_size, hidden}, c.vocab_size);
  m.positions.table = read.matrix(tables + "position_embeddings.weight", {c.max_positions, hidden}, c.max_positions);
  m.token_types.table = read.matrix(tables + "token_type_embeddings.weight", {c.token_types, hidden}, c.token_types);
  m.embedding_norm = norm(tables + "LayerNorm");
  for (std::int64_t i = 0; i < c.num_layers; ++i) {
    const std::string at = cat(prefix, "encoder.layer.", i, ".");
    nn::Block block;
    block.norm_first = false;
    nn::Attention& a = block.attention;
    a.q = read.linear(at + "attention.self.query", {hidden, hidden}, true);
    a.k = read.linear(at + "attention.self.key", {hidden, hidden}, true);
    a.v = read.linear(at + "attention.self.value", {hidden, hidden}, true);
    a.o = read.linear(at + "attention.output.dense", {hidden, hidden}, true);
    a.heads = a.kv_heads = c.num_heads;
    a.head_dim = hidden / c.num_heads;
    a.scale = 1 / std::sqrt(static_cast<float>(a.head_dim));
    block.attention_norm = norm(at + "attention.output.LayerNorm");
    block.mlp.activation = c.activation;
    block.mlp.up = read.linear(at + "intermediate.dense", {inner, hidden}, true);
    block.mlp.down = read.linear(at + "output.dense", {hidden, inner}, true);
    block.mlp_norm = norm(at + "output.LayerNorm");
    m.blocks.push_back(std::move(block));
  }
  if (weights.has_linear(prefix + "pooler.dense")) {
    m.pooler = read.linear(prefix + "pooler.dense", {hidden, hidden}, true);
  }
  return m;
}

}  // namespace nibble::models
