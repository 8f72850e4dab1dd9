// A checkpoint: the tensors of a model folder (or single file) as views over memory mappings, and its JSON files.
// All headers are validated when it is opened; after that every view is safe to read.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "tensor/view.h"

namespace nibble {

struct TensorEntry {
  std::string name;
  View view;
  std::filesystem::path file;  ///< the file it lies in, for messages
  /// Name of the dtype in the file when nibble has no such type and `view` shows raw bytes ("F4", "F8_E8M0"); else "".
  std::string raw_dtype;
};

/// What a checkpoint made in memory consists of.
struct CheckpointParts {
  std::filesystem::path folder;      ///< where it came from: side files that `files` lacks are read there
  std::vector<TensorEntry> tensors;  ///< in any order, with distinct names
  Json config;
  Json metadata;
  std::map<std::string, std::string> files;  ///< side files by name: "quanto_qmap.json"
  std::shared_ptr<const void> owner;         ///< keeps the tensors' memory
  std::function<void(const View&)> release;  ///< what Checkpoint::release does with a tensor; may be empty
};

class Checkpoint {
 public:
  /// A checkpoint in memory, for example a quantized one that was never written.
  static std::shared_ptr<const Checkpoint> in_memory(CheckpointParts parts);

  /// Opens what `model` names: a folder with model.safetensors, an index and shards, or pytorch_model.bin; a single
  /// file of those kinds; or `org/name[@revision]` in the Hugging Face cache (see resolve_model). Throws
  /// Error(bad_input) naming file and tensor.
  static std::shared_ptr<const Checkpoint> open(const std::string& model);

  /// The model's folder: that of the file when a single file was named.
  const std::filesystem::path& folder() const { return folder_; }

  /// All tensors, ordered by name.
  std::span<const TensorEntry> tensors() const { return tensors_; }

  /// nullptr when there is none of this name.
  const TensorEntry* find(std::string_view name) const;

  /// The view of `name`; throws Error(bad_input, "<folder>: tensor <name> is missing").
  const View& at(std::string_view name) const;

  /// config.json, or a null Json when the folder has none.
  const Json& config() const { return config_; }

  /// String metadata of the first safetensors file ("format": "pt").
  const Json& metadata() const { return metadata_; }

  /// A JSON file beside the weights ("quanto_qmap.json"); nullopt when there is none. Throws Error(bad_input) when it
  /// is no JSON or larger than `max_bytes`.
  std::optional<Json> json_file(const std::string& name, std::int64_t max_bytes = std::int64_t{64} << 20) const;
  /// Side files that exist in memory only.
  const std::map<std::string, std::string>& files() const { return files_; }

  /// Says that a tensor is not needed soon, for example because its codes were packed anew: when it lies in a mapped
  /// file, its pages leave this process's memory (they are read again on the next use). Otherwise nothing happens.
  void release(const View& tensor) const;

  /// Keeps all mappings alive; share it as QTensor::owner.
  std::shared_ptr<const void> owner() const { return owner_; }

 private:
  friend class CheckpointReader;
  std::filesystem::path folder_;
  std::vector<TensorEntry> tensors_;
  Json config_;
  Json metadata_;
  std::map<std::string, std::string> files_;
  std::shared_ptr<const void> owner_;
  std::vector<std::span<const std::byte>> mappings_;
  std::function<void(const View&)> release_;  ///< instead of looking for mappings
};

/// The folder or file that `model` names: an existing path; else `org/name[@revision]` (or `name`) in the Hugging Face
/// cache ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub: the first that is set). Throws Error(bad_input) naming
/// the place that was searched.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace nibble
