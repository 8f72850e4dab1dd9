#include "run/encoder_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "run/weight_count.h"

namespace nibble {
namespace {

/// Images computed at once.
constexpr std::int64_t kBatch = 8;

ModelInfo describe(const models::Encoder& encoder) {
  const models::EncoderConfig& c = encoder.config;
  ModelInfo info;
  info.architecture = c.architecture;
  info.vocab_size = c.vocab_size;
  info.hidden_size = c.hidden_size;
  info.num_layers = c.num_layers;
  info.context_length = c.max_positions;
  WeightCount count;
  for (const nn::Embedding* table : {&encoder.tokens, &encoder.token_types, &encoder.positions}) {
    count.matrix(table->table);
  }
  encoder.each_linear([&](const nn::Linear& linear) { count.linear(linear); });
  for (const nn::Block& block : encoder.blocks) {
    count.norm(block.attention_norm);
    count.norm(block.mlp_norm);
  }
  count.norm(encoder.embedding_norm);
  count.norm(encoder.final_norm);
  count.floats(encoder.first);
  info.parameters = count.parameters;
  info.weight_bytes = count.bytes;
  return info;
}

void check_range(std::string_view what, std::span<const std::int32_t> values, std::int64_t limit,
                 std::string_view limit_name) {
  for (const std::int32_t value : values) {
    if (value >= 0 && value < limit) continue;
    throw bad_input(what, " ", value, " is outside the model's ", limit_name, " of ", limit);
  }
}

/// Images [first, first + count) as f32.
std::vector<float> read_pixels(const View& pixels, std::int64_t first, std::int64_t count) {
  std::vector<float> out = pixels.rows(first, first + count).to_f32();
  for (const float value : out) {
    if (!std::isfinite(value)) throw bad_input("tensor pixel_values: a value is not finite");
  }
  return out;
}

std::vector<float> part(const std::vector<float>& all, std::int64_t index, std::int64_t size) {
  return {all.begin() + index * size, all.begin() + (index + 1) * size};
}

}  // namespace

EncoderModel::EncoderModel(std::shared_ptr<const Checkpoint> checkpoint, Exec& exec)
    : checkpoint_(std::move(checkpoint)),
      encoder_(models::build_encoder(WeightStore(checkpoint_), exec)),
      info_(describe(encoder_)) {}

EncoderOutput EncoderModel::encode(std::span<const std::int32_t> ids, std::span<const std::int32_t> types,
                                   Exec& exec) const {
  const models::EncoderConfig& c = config();
  if (reads_images()) throw bad_input(c.architecture, " reads images, not token ids");
  if (ids.empty()) throw bad_input("there are no tokens to compute");
  check_range("token id", ids, c.vocab_size, "vocabulary");
  check_range("token type", types, c.token_types, "token types");
  if (!types.empty() && types.size() != ids.size()) {
    throw bad_input("there are ", types.size(), " token types for ", ids.size(), " token ids");
  }
  const auto rows = static_cast<std::int64_t>(ids.size());
  if (rows > c.max_positions) {
    throw bad_input("the sequence would have ", rows, " tokens, but the context holds ", c.max_positions);
  }
  EncoderOutput out;
  out.last_hidden_state.resize(static_cast<std::size_t>(rows * c.hidden_size));
  encoder_.encode_text(ids, types, out.last_hidden_state.data(), exec);
  if (has_pooler()) {
    out.pooler_output.resize(static_cast<std::size_t>(c.pooler_size));
    encoder_.pool(out.last_hidden_state.data(), 1, rows, out.pooler_output.data(), exec);
  }
  return out;
}

std::vector<EncoderOutput> EncoderModel::encode_images(const View& pixels, Exec& exec) const {
  const models::EncoderConfig& c = config();
  if (!reads_images()) throw bad_input(c.architecture, " reads token ids, not images");
  const DType t = pixels.dtype();
  if (t != DType::f32 && t != DType::f16 && t != DType::bf16) {
    throw bad_input("tensor pixel_values: expected f32, f16 or bf16, found ", name_of(t));
  }
  if (pixels.rank() != 4 || pixels.dim(1) != c.channels || pixels.dim(2) != c.height || pixels.dim(3) != c.width) {
    throw bad_input("tensor pixel_values has shape ", to_string(pixels.shape()), ", but ", c.architecture,
                    " reads [images, ", c.channels, ", ", c.height, ", ", c.width, "]");
  }
  if (pixels.dim(0) == 0) throw bad_input("tensor pixel_values has no image");
  std::vector<EncoderOutput> all;
  const std::int64_t rows = c.image_positions(), state = rows * c.hidden_size;
  for (std::int64_t first = 0; first < pixels.dim(0); first += kBatch) {
    const std::int64_t count = std::min(kBatch, pixels.dim(0) - first);
    const std::vector<float> values = read_pixels(pixels, first, count);
    std::vector<float> x(static_cast<std::size_t>(count * state));
    std::vector<float> pooled(static_cast<std::size_t>(has_pooler() ? count * c.pooler_size : 0));
    std::vector<float> logits(static_cast<std::size_t>(count * c.classes));
    encoder_.encode_images(values.data(), count, x.data(), exec);
    if (!pooled.empty()) encoder_.pool(x.data(), count, rows, pooled.data(), exec);
    if (!logits.empty()) encoder_.classify(x.data(), count, rows, logits.data(), exec);
    for (std::int64_t i = 0; i < count; ++i) {
      EncoderOutput& out = all.emplace_back();
      out.last_hidden_state = part(x, i, state);
      if (!pooled.empty()) out.pooler_output = part(pooled, i, c.pooler_size);
      if (!logits.empty()) out.logits = part(logits, i, c.classes);
    }
  }
  return all;
}

}  // namespace nibble
