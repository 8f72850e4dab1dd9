// All classes of models that run, of every shape.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble::models {

enum class ModelShape : std::uint8_t {
  decoder,          ///< ids in, next-token logits out: an ArchSpec
  encoder_decoder,  ///< a text's ids to an encoder, next-token logits from a decoder
  text_encoder,     ///< ids in, hidden states out
  image_encoder,    ///< pixels in, hidden states or class logits out
};

struct ModelClass {
  std::string_view hf_class;    ///< "T5ForConditionalGeneration"
  std::string_view model_type;  ///< "t5"
  ModelShape shape = ModelShape::decoder;
};

/// Decoders first, in the order of archs.def.
std::span<const ModelClass> all_model_classes();

/// The class that config.json names: the first of `architectures` that is known, or, when it has none, the first class
/// of its model_type. Throws Error(bad_input) with the list of those supported; `file` begins the message.
const ModelClass& model_class_of(const Json& config, std::string_view file);

/// Throws Error(bad_input) when `config` names a class of another shape.
void require_shape(const Json& config, std::string_view file, ModelShape shape);

}  // namespace nibble::models
