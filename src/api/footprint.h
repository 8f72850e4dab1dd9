// The number that Transformers' get_memory_footprint() gives for a checkpoint.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>

#include "checkpoint/checkpoint.h"

namespace nibble {

/// Bytes of all parameters and buffers that Transformers 5 has for the checkpoint: floats at `dtype` (none: the
/// config's, else the first tensor's), shared ones once, tables of rotary embedding included. Of a quantized module:
/// bitsandbytes' codes without scales and tables, which are neither parameter nor buffer; Quanto's weight at its size
/// before quantization; of other schemes all tensors.
std::int64_t transformers_footprint(std::shared_ptr<const Checkpoint> checkpoint, std::optional<DType> dtype);

}  // namespace nibble
