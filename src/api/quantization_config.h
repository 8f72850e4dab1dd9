// What from_pretrained's quantization options mean for a checkpoint: quantize its floats, or override the loading
// attributes of one that is quantized already.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "nibble/nibble.h"

namespace nibble {

/// The one config that `options` ask for, checked. Throws Error(bad_input) when they ask for two.
std::optional<QuantizationConfig> requested_config(const PretrainedOptions& options);

/// The name of the scheme that claims the checkpoint ("gptq", "bnb4", ...), or "" for floats.
std::string_view claiming_scheme(const Checkpoint& checkpoint);

/// The quantized checkpoint with the loading attributes of `config`; what is ignored is added to `notes`. As in
/// Transformers, a config of another method is Error(bad_input).
std::shared_ptr<const Checkpoint> with_loading_attributes(std::shared_ptr<const Checkpoint> checkpoint,
                                                          std::string_view scheme, const QuantizationConfig& config,
                                                          std::vector<std::string>& notes);

}  // namespace nibble
