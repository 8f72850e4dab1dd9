// From a pickle's values to named, contiguous tensors.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/pickle/machine.h"

namespace nibble {

/// The bytes of a storage; at least storage.bytes of them, or an Error.
using StorageBytes = std::function<std::span<const std::byte>(const TorchStorage&)>;

struct TorchFileLimits {
  std::filesystem::path file;          ///< for messages and TensorEntry::file
  std::int64_t most_copied_bytes = 0;  ///< of tensors that must be made contiguous
};

/// Appends the tensors below `pickle.root` to `out`, memory of copies to `keep`.
void collect_tensors(const Pickle& pickle, const StorageBytes& storage_bytes, const TorchFileLimits& limits,
                     std::vector<TensorEntry>& out, std::vector<std::shared_ptr<const void>>& keep);

}  // namespace nibble
