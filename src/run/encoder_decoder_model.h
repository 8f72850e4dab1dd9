// Encoder-decoders as a Model: encode() first, then forward() on the decoder's ids.
#pragma once
#include <memory>

#include "run/model.h"

namespace nibble {

/// What Model::load does for such a checkpoint.
std::unique_ptr<Model> load_encoder_decoder(const std::shared_ptr<const Checkpoint>& checkpoint,
                                            const ModelOptions& options, Exec& exec);

}  // namespace nibble
