// Quantizing while a model loads: the checkpoint that `nibble quantize` would write, kept in memory.
#pragma once
#include <memory>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "nibble/nibble.h"

namespace nibble {

/// What a float model shall become, and where its modules go.
struct QuantizeRequest {
  const QuantizationConfig& config;
  const DeviceMap& device_map;
};

/// The tensors of `source`, those of linear modules replaced by their quantized parts; the others stay views of it.
/// Throws Error(bad_input) when the config is wrong, or is for checkpoints that are quantized already (AWQ, AQLM).
std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     const QuantizeRequest& request, ThreadPool& pool,
                                                     const ProgressCallback& progress = {});

}  // namespace nibble
