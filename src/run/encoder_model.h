// Encoders: the hidden states of a text (BERT) or of images (ViT).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "models/encoder.h"
#include "run/model.h"

namespace nibble {

/// Of one sequence.
struct EncoderOutput {
  std::vector<float> last_hidden_state;  ///< [positions, hidden_size]
  std::vector<float> pooler_output;      ///< [pooler_size], or empty: no pooler
  std::vector<float> logits;             ///< [classes], or empty: no classifier
};

class EncoderModel {
 public:
  /// Error(bad_input) naming file, field or tensor, also when the checkpoint is no encoder's.
  EncoderModel(std::shared_ptr<const Checkpoint> checkpoint, Exec& exec);

  const ModelInfo& info() const { return info_; }
  const models::EncoderConfig& config() const { return encoder_.config; }
  bool reads_images() const { return config().shape == models::ModelShape::image_encoder; }
  bool has_pooler() const { return !encoder_.pooler.weight.empty(); }

  /// `types`: one token type per id, or none (all 0). Error(bad_input) when an id, a type or the length is out of
  /// range, or the model reads images.
  EncoderOutput encode(std::span<const std::int32_t> ids, std::span<const std::int32_t> types, Exec& exec) const;

  /// `pixels` [n, channels, height, width], f32, f16 or bf16, finite. Error(bad_input) naming what does not fit.
  std::vector<EncoderOutput> encode_images(const View& pixels, Exec& exec) const;

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
  models::Encoder encoder_;
  ModelInfo info_;
};

}  // namespace nibble
