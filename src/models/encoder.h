// Models that give hidden states: BERT (a text) and ViT (an image). Learned positions, blocks whose attention goes both
// ways, perhaps a pooler and a classifier on the first position.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "models/config_reader.h"
#include "models/model_class.h"
#include "nn/block.h"
#include "nn/embedding.h"
#include "quant/scheme.h"

namespace nibble::models {

struct EncoderConfig {
  std::string architecture;
  ModelShape shape = ModelShape::text_encoder;
  std::int64_t hidden_size = 0, intermediate_size = 0, num_layers = 0, num_heads = 0;
  Activation activation = Activation::gelu;
  float norm_eps = 1e-12f;
  bool qkv_bias = true;
  // texts
  std::int64_t vocab_size = 0, max_positions = 0, token_types = 0;
  // images
  std::int64_t channels = 0, height = 0, width = 0, patch_height = 0, patch_width = 0;
  std::int64_t classes = 0;  ///< of a classifier; 0: none
  std::int64_t pooler_size = 0;
  Activation pooler_activation = Activation::tanh;

  /// Pixels of an image, [channels, height, width].
  std::int64_t image_elements() const { return channels * height * width; }
  /// Positions of an image: its patches and the one in front of them.
  std::int64_t image_positions() const { return height / patch_height * (width / patch_width) + 1; }
};

/// Reads and range-checks config.json; errors as parse_model_config.
EncoderConfig parse_encoder_config(const Json& config, std::string_view file);

struct Encoder {
  EncoderConfig config;
  nn::Embedding tokens, token_types;  ///< texts
  nn::Norm embedding_norm;            ///< texts
  nn::Linear patches;                 ///< images: a patch [channels, patch_height, patch_width] to hidden_size
  std::vector<float> first;           ///< images: [hidden_size], the embedding of the first position
  nn::Embedding positions;
  std::vector<nn::Block> blocks;
  nn::Norm final_norm;    ///< size 0: none
  nn::Linear pooler;      ///< empty weight: none
  nn::Linear classifier;  ///< empty weight: none

  /// Every linear, in the order in which they run.
  void each_linear(const std::function<void(const nn::Linear&)>& visit) const;

  /// x [ids.size(), hidden_size] = the last hidden state of a text. Ids and types (one per id, or none: all 0) are in
  /// range, and no more than max_positions.
  void encode_text(std::span<const std::int32_t> ids, std::span<const std::int32_t> types, float* x, Exec& exec) const;

  /// x [images, image_positions(), hidden_size] = the last hidden states of `pixels` [images, image_elements()].
  void encode_images(const float* pixels, std::int64_t images, float* x, Exec& exec) const;

  /// out [sequences, pooler_size] from the first positions of x [sequences, rows, hidden_size].
  void pool(const float* x, std::int64_t sequences, std::int64_t rows, float* out, Exec& exec) const;
  /// out [sequences, classes], likewise.
  void classify(const float* x, std::int64_t sequences, std::int64_t rows, float* out, Exec& exec) const;

 private:
  void run_blocks(float* x, std::int64_t sequences, std::int64_t rows, Exec& exec) const;
};

/// Throws Error(bad_input) naming file and tensor or field.
Encoder build_encoder(const WeightStore& weights, Exec& exec);

// The families' parts of the two, in bert.cc and vit.cc.
void read_bert_config(const ConfigReader& fields, EncoderConfig& config);
void read_vit_config(const ConfigReader& fields, EncoderConfig& config);
Encoder build_bert(const WeightStore& weights, const EncoderConfig& config, Exec& exec);
Encoder build_vit(const WeightStore& weights, const EncoderConfig& config, Exec& exec);

}  // namespace nibble::models
