// T5 (Raffel et al. 2020, arXiv:1910.10683), T5 v1.1 and flan-T5: an encoder reads a text, a decoder writes an answer,
// looking at the encoder's output in every block. RMS norms before, no biases, positions only by relative bias.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "models/config_reader.h"
#include "models/decoder.h"
#include "nn/block.h"
#include "nn/cross_block.h"
#include "nn/embedding.h"
#include "nn/relative_bias.h"
#include "quant/scheme.h"

namespace nibble::models {

struct EncoderDecoderConfig {
  std::string architecture;
  std::int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0;
  std::int64_t encoder_layers = 0, decoder_layers = 0;
  std::int64_t num_heads = 0, head_dim = 0;
  std::int64_t bias_buckets = 32, bias_max_distance = 128;  ///< see nn::RelativeBias
  float norm_eps = 1e-6f;
  Activation activation = Activation::relu;
  bool gated = false;
  bool tie_embeddings = true;
  bool scale_output = true;  ///< the decoder's output is divided by sqrt(hidden_size) before the head
};

/// Reads and range-checks config.json; errors as parse_model_config.
EncoderDecoderConfig parse_encoder_decoder_config(const Json& config, std::string_view file);

struct EncoderDecoder {
  EncoderDecoderConfig config;
  nn::Embedding tokens;  ///< of both sides
  std::vector<nn::Block> encoder;
  nn::RelativeBias encoder_bias;
  nn::Norm encoder_norm;
  std::vector<nn::CrossBlock> decoder;
  nn::RelativeBias decoder_bias;
  nn::Norm decoder_norm;
  nn::Linear head;

  /// Every linear, in the order in which they run.
  void each_linear(const std::function<void(const nn::Linear&)>& visit) const;
  void each_linear(const std::function<void(nn::Linear&)>& visit);

  /// Runs the encoder on `ids` (not empty, inside the vocabulary) and stores what each decoder block attends to as
  /// `sequence` of `encoded`, where room for ids.size() positions is reserved.
  void encode(std::span<const std::int32_t> ids, std::int64_t sequence, nn::KvCache& encoded, Exec& exec) const;

  /// As Decoder::forward; each item's sequence has the same number in both caches.
  void forward(std::span<const PassItem> items, nn::KvCache& cache, const nn::KvCache& encoded, float* logits,
               Exec& exec) const;
};

/// Throws Error(bad_input) naming file and tensor or field.
EncoderDecoder build_encoder_decoder(const WeightStore& weights, Exec& exec);

}  // namespace nibble::models
