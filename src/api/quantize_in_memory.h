// Quantizing while a model loads: the checkpoint that `nibble quantize` would write, kept in memory.
#pragma once
#include <memory>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "nibble/nibble.h"

namespace nibble {

/// The tensors of `source`, those of linear modules replaced by their quantized parts; the others stay views of it.
/// Throws Error(bad_input) when the config is wrong or the checkpoint is quantized already.
std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     const QuantoConfig& config, ThreadPool& pool,
                                                     const ProgressCallback& progress = {});

}  // namespace nibble
