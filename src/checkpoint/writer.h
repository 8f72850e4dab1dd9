// Writes a model folder as safetensors: the shards are planned before the first byte, tensors are streamed in plan
// order, and the result appears whole or not at all: each file is written as *.partial, synced and renamed, the index
// (or the single model.safetensors) last.
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "tensor/view.h"

namespace nibble {

struct TensorPlan {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

struct WriterOptions {
  std::int64_t max_shard_bytes = std::int64_t{5} * 1000 * 1000 * 1000;  ///< as Transformers: "5GB"
  Json metadata = Json::Object{{"format", "pt"}};                       ///< strings only
};

class CheckpointWriter {
 public:
  /// Plans the shards and checks that the folder can be made and that the disk has room; Error(runtime) with both
  /// numbers if not.
  CheckpointWriter(std::filesystem::path folder, std::vector<TensorPlan> plan, WriterOptions options = {});
  /// Without commit(): removes every partial file.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// The next tensor of the plan; name and size are checked against it.
  void write(const std::string& name, std::span<const std::byte> bytes);

  /// A side file (config.json, tokenizer.json, chat_templates/x.jinja, ...), published by commit() before the weights.
  void add_file(const std::string& name, std::string content);

  /// Syncs and renames everything; the index or model.safetensors comes last.
  void commit();

  /// Bytes that all files will have, headers included.
  std::int64_t total_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "5GB", "500MB", "2GiB", "1000000" as bytes; Error(bad_input) else.
std::int64_t parse_byte_size(const std::string& text);

}  // namespace nibble
