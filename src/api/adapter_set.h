// The LoRA adapters of one public model: which are loaded, and which of them are in use.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "run/adapter/bind.h"

namespace nibble {

class AdapterSet {
 public:
  /// The names of those in use, in the order in which they were loaded.
  std::vector<std::string> active() const;
  /// Adds an adapter that is in use from then on. Empty name: the last part of the path. Throws Error(bad_input) when
  /// the name is taken.
  std::string add(const std::string& path, double scale, std::string name);
  /// Only these are in use from now on. Throws Error(bad_input) for an unknown name.
  void activate(const std::vector<std::string>& names);
  void enable(bool on) { enabled_ = on; }

  /// Puts the adapters in use into `model`, which is built again (from `base`, with what adapters bring whole) only
  /// where the tensors that it runs with change.
  void apply(const std::shared_ptr<const Checkpoint>& base, std::unique_ptr<Model>& model, Exec& exec);

 private:
  struct Entry {
    std::string name;
    AdapterUse use;
    bool active = true;
  };
  std::vector<Entry> entries_;
  bool enabled_ = true;
  bool replaced_ = false;  ///< the model runs with tensors of adapters
};

}  // namespace nibble
