// The arithmetic that suits a checkpoint when nobody asks for another.
#pragma once
#include "base/dtype.h"
#include "checkpoint/checkpoint.h"

namespace nibble {

/// bf16 for checkpoints whose config (dtype, torch_dtype) or, without such a field, whose tensors are bf16; else f32,
/// which loses nothing of f16 and f32 weights.
DType default_compute_dtype(const Checkpoint& checkpoint);

}  // namespace nibble
