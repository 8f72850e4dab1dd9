// The modules of a model under the names of Transformers, whatever prefix the checkpoint's tensors have: what a
// device_map, a fusing map, or a question for a dtype speaks of.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

class ModuleNames {
 public:
  explicit ModuleNames(const Checkpoint& checkpoint);

  /// Whether `name` is a module of the model, or a part of its tree above modules; "" is the model.
  bool has(std::string_view name) const;
  /// Whether `module` (one of leaves()) is `name` or lies below it.
  bool within(std::string_view module, std::string_view name) const;
  /// Full names of all modules that own tensors, "model.layers.0.mlp.up_proj", and the output head also when it is
  /// tied.
  const std::vector<std::string>& leaves() const { return leaves_; }
  /// The name with the usual prefix, whatever prefix the checkpoint has.
  std::string full(std::string_view name) const;
  /// The tensor of a full or prefixless name, in which a number below 0 counts from the last layer; a tied head's
  /// weight is the embedding's. nullptr when there is none.
  const TensorEntry* tensor(std::string_view name) const;

 private:
  std::string counted(std::string_view name) const;

  std::vector<std::string_view> prefixes_{""};  ///< the usual one first
  std::string head_, tokens_;                   ///< full module names; empty: none known
  std::vector<std::string> leaves_;
  std::map<std::string, const TensorEntry*, std::less<>> tensors_;  ///< by full name
};

}  // namespace nibble
