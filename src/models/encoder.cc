#include "models/encoder.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "models/config_limits.h"
#include "nn/each_linear.h"

namespace nibble::models {
namespace {

/// The pixels of an image [channels, height, width] as rows, one per patch: [patches, channels, patch_height,
/// patch_width].
void cut_patches(const EncoderConfig& c, const float* image, float* to) {
  for (std::int64_t y = 0; y < c.height; y += c.patch_height) {
    for (std::int64_t x = 0; x < c.width; x += c.patch_width) {
      for (std::int64_t line = 0; line < c.channels * c.patch_height; ++line) {
        const std::int64_t channel = line / c.patch_height, row = y + line % c.patch_height;
        to = std::copy_n(image + (channel * c.height + row) * c.width + x, c.patch_width, to);
      }
    }
  }
}

/// The first row of each sequence of x [sequences, rows, width].
const float* first_rows(const float* x, std::int64_t sequences, std::int64_t rows, std::int64_t width, Exec& exec) {
  float* out = exec.arena.take<float>(sequences * width).data();
  for (std::int64_t i = 0; i < sequences; ++i) std::copy_n(x + i * rows * width, width, out + i * width);
  return out;
}

}  // namespace

EncoderConfig parse_encoder_config(const Json& config, std::string_view file) {
  const ModelClass& found = model_class_of(config, file);
  if (found.shape != ModelShape::image_encoder) require_shape(config, file, ModelShape::text_encoder);
  const ConfigReader fields(config, std::string(file));
  fields.float_type();  // unknown ones are refused
  EncoderConfig c;
  c.architecture = found.hf_class;
  c.shape = found.shape;
  c.hidden_size = fields.integer({"hidden_size"}, 1, kMaxWidth);
  c.intermediate_size = fields.integer({"intermediate_size"}, 1, kMaxWidth * 16);
  c.num_layers = fields.integer({"num_hidden_layers"}, 1, kMaxLayers);
  c.num_heads = fields.integer({"num_attention_heads"}, 1, kMaxHeads);
  if (c.hidden_size % c.num_heads != 0) {
    throw bad_input(fields.field("num_attention_heads"), " is ", c.num_heads, ", which does not divide hidden_size ",
                    c.hidden_size);
  }
  c.activation = fields.activation({"hidden_act"}, "gelu");
  c.norm_eps = static_cast<float>(fields.number({"layer_norm_eps"}, 0, 1, 1e-12));
  c.pooler_size = c.hidden_size;
  if (c.shape == ModelShape::image_encoder) {
    read_vit_config(fields, c);
  } else {
    read_bert_config(fields, c);
  }
  return c;
}

Encoder build_encoder(const WeightStore& weights, Exec& exec) {
  const Checkpoint& checkpoint = weights.checkpoint();
  const std::string file = (checkpoint.folder() / "config.json").string();
  const EncoderConfig config = parse_encoder_config(checkpoint.config(), file);
  return config.shape == ModelShape::image_encoder ? build_vit(weights, config, exec)
                                                   : build_bert(weights, config, exec);
}

void Encoder::each_linear(const std::function<void(const nn::Linear&)>& visit) const {
  nn::visit_present(patches, visit);
  for (const nn::Block& block : blocks) nn::each_block_linear(block, visit);
  nn::visit_present(pooler, visit);
  nn::visit_present(classifier, visit);
}

void Encoder::encode_text(std::span<const std::int32_t> ids, std::span<const std::int32_t> types, float* x,
                          Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const auto rows = static_cast<std::int64_t>(ids.size());
  const std::int64_t width = config.hidden_size;
  float* other = exec.arena.take<float>(rows * width).data();
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto at = static_cast<std::size_t>(i);
    tokens.row(ids[at], x + i * width, exec);
    token_types.row(types.empty() ? 0 : types[at], other + i * width, exec);
  }
  exec.ops().add(other, rows * width, x, exec);
  decode(positions.table, 0, rows, other, exec);
  exec.ops().add(other, rows * width, x, exec);
  embedding_norm.forward(x, rows, x, exec);
  run_blocks(x, 1, rows, exec);
}

void Encoder::encode_images(const float* pixels, std::int64_t images, float* x, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const std::int64_t width = config.hidden_size, rows = config.image_positions(), cut = rows - 1;
  float* cuts = exec.arena.take<float>(images * config.image_elements()).data();
  float* embedded = exec.arena.take<float>(images * cut * width).data();
  float* place = exec.arena.take<float>(rows * width).data();
  for (std::int64_t i = 0; i < images; ++i) {
    cut_patches(config, pixels + i * config.image_elements(), cuts + i * config.image_elements());
  }
  patches.forward(cuts, images * cut, embedded, exec);
  decode(positions.table, 0, rows, place, exec);
  for (std::int64_t i = 0; i < images; ++i) {
    float* to = x + i * rows * width;
    std::copy_n(first.data(), width, to);
    std::copy_n(embedded + i * cut * width, cut * width, to + width);
    exec.ops().add(place, rows * width, to, exec);
  }
  run_blocks(x, images, rows, exec);
}

void Encoder::run_blocks(float* x, std::int64_t sequences, std::int64_t rows, Exec& exec) const {
  std::vector<nn::PassSeq> seqs;
  for (std::int64_t i = 0; i < sequences; ++i) seqs.push_back({i, i * rows, rows, 0});
  nn::Pass pass;
  pass.rows = sequences * rows;
  pass.seqs = seqs;
  for (const nn::Block& block : blocks) block.forward(x, pass, exec);
  if (final_norm.size > 0) final_norm.forward(x, pass.rows, x, exec);
}

void Encoder::pool(const float* x, std::int64_t sequences, std::int64_t rows, float* out, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  pooler.forward(first_rows(x, sequences, rows, config.hidden_size, exec), sequences, out, exec);
  exec.ops().activate(config.pooler_activation, out, sequences * config.pooler_size, out, exec);
}

void Encoder::classify(const float* x, std::int64_t sequences, std::int64_t rows, float* out, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  classifier.forward(first_rows(x, sequences, rows, config.hidden_size, exec), sequences, out, exec);
}

}  // namespace nibble::models
