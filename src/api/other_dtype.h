// torch_dtype for the modules that are not quantized.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"

namespace nibble {

/// Whether a tensor (by its name in the checkpoint) belongs to one of `modules`, sorted names of quantized modules.
bool belongs_to(const std::string& tensor, const std::vector<std::string>& modules);

/// Names of the quantized modules, sorted; empty for floats. Opens the checkpoint's scheme: what is wrong with the
/// quantized tensors is thrown here.
std::vector<std::string> quantized_modules(std::shared_ptr<const Checkpoint> checkpoint);

/// The checkpoint with every float tensor outside of the `quantized` modules rounded to `dtype` (to nearest even; what
/// is too large becomes infinite, as in PyTorch). Tensors that `dtype` holds without rounding stay as they are: their
/// values are the same.
std::shared_ptr<const Checkpoint> with_other_dtype(std::shared_ptr<const Checkpoint> checkpoint, DType dtype,
                                                   const std::vector<std::string>& quantized, ThreadPool& pool);

}  // namespace nibble
