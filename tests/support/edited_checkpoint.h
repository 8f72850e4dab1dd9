// A checkpoint in memory that a test may change and write to a folder, to see what readers say of it.
#pragma once
#include <cstring>
#include <filesystem>
#include <map>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "support/test_support.h"

namespace nibble::test {

struct EditedCheckpoint {
  Json config = Json::Object{};
  std::map<std::string, Tensor> tensors;

  EditedCheckpoint() = default;
  ~EditedCheckpoint() = default;
  /// Copies share no memory.
  EditedCheckpoint(const EditedCheckpoint& other) : config(other.config) {
    for (const auto& [name, tensor] : other.tensors) tensors.emplace(name, Tensor(tensor.view()));
  }
  EditedCheckpoint& operator=(const EditedCheckpoint&) = delete;
  /// All tensors of `from` whose name begins with `prefix`.
  explicit EditedCheckpoint(const Checkpoint& from, const std::string& prefix = "") : config(from.config()) {
    for (const TensorEntry& entry : from.tensors()) {
      if (entry.name.compare(0, prefix.size(), prefix) == 0) tensors.emplace(entry.name, Tensor(entry.view));
    }
  }

  /// Another dtype or shape over the bytes there are; missing ones are zero, superfluous ones go.
  void reshape(const std::string& name, DType dtype, Shape shape) {
    Tensor out(std::move(shape), dtype);
    const Tensor& old = tensors.at(name);
    std::memcpy(out.data(), old.data(), std::min(old.view().size_bytes(), out.view().size_bytes()));
    tensors[name] = out;
  }

  void set_text(const std::string& name, const std::string& text) {
    Tensor out({static_cast<std::int64_t>(text.size())}, DType::u8);
    std::memcpy(out.data(), text.data(), text.size());
    tensors[name] = out;
  }

  void write(const std::filesystem::path& folder) const {
    std::vector<TensorPlan> plan;
    for (const auto& [name, tensor] : tensors) plan.push_back({name, tensor.dtype(), tensor.shape()});
    CheckpointWriter writer(folder, plan);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor.view().bytes());
    writer.add_file("config.json", config.dump(2));
    writer.commit();
  }
};

}  // namespace nibble::test
