// PyTorch checkpoints (torch.save): zip archives with data.pkl and one entry per storage, and the older format without
// zip (magic number, pickles, storages one after the other). The pickle is read as inert data: nothing is executed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/checkpoint.h"

namespace nibble {

struct TorchContent {
  std::vector<TensorEntry> tensors;               ///< nested names are joined by '.'
  std::vector<std::shared_ptr<const void>> keep;  ///< memory that the views point into, besides the mapping
};

/// Whether the file begins like one of the two formats.
bool is_torch_file(const MappedFile& file);

/// All tensors below the root object; when that is a training checkpoint (no tensors of its own, but a dict
/// "state_dict", "model_state_dict" or "model"), only those in there. Contiguous tensors are views into the file,
/// others are copied. Throws Error(bad_input) naming the file and what was refused.
TorchContent read_torch_file(const std::shared_ptr<const MappedFile>& file);

/// Compares every zip entry with its checksum; Error(bad_input) naming the first that differs. The older format has
/// none.
void verify_torch_file(const std::shared_ptr<const MappedFile>& file);

/// The pickles in the file as instructions, for people to look at; executes nothing.
std::string disassemble_torch_file(const std::shared_ptr<const MappedFile>& file);

}  // namespace nibble
