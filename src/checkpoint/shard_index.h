// The index of a sharded checkpoint (`model.safetensors.index.json`, `pytorch_model.bin.index.json`):
// {"metadata": {"total_size": bytes}, "weight_map": {tensor: shard file}}.
#pragma once
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

struct ShardIndex {
  std::filesystem::path file;
  std::vector<std::string> shards;                          ///< file names in the index's folder, sorted, each once
  std::unordered_map<std::string, std::uint32_t> shard_of;  ///< tensor -> position in `shards`
};

/// Reads the index and makes sure that every shard is a plain name of a regular file that really lies in the folder (or
/// in the blobs of a Hugging Face cache). Throws Error(bad_input) naming the file and the entry.
ShardIndex read_shard_index(const std::filesystem::path& file);

/// Throws when a tensor of the index is not in the shard it names. `checkpoint` holds the tensors of all shards.
void check_against_index(const ShardIndex& index, const Checkpoint& checkpoint);

}  // namespace nibble
