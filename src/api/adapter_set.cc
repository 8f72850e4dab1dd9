#include "api/adapter_set.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"

namespace nibble {
namespace {

std::string last_part(const std::string& path) {
  std::filesystem::path parts(path);
  if (!parts.has_filename()) parts = parts.parent_path();
  return parts.filename().string();
}

}  // namespace

std::vector<std::string> AdapterSet::active() const {
  std::vector<std::string> out;
  for (const Entry& entry : entries_) {
    if (enabled_ && entry.active) out.push_back(entry.name);
  }
  return out;
}

std::string AdapterSet::add(const std::string& path, double scale, std::string name) {
  if (!std::isfinite(scale)) throw bad_input("load_adapter: the scale is not finite");
  if (name.empty()) name = last_part(path);
  const auto same = [&](const Entry& entry) { return entry.name == name; };
  if (std::any_of(entries_.begin(), entries_.end(), same)) {
    throw bad_input("load_adapter: there is an adapter ", printable(name), " already; give this one another name");
  }
  entries_.push_back({name, {Adapter::open(path), scale}, true});
  enabled_ = true;
  return name;
}

void AdapterSet::activate(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto same = [&](const Entry& entry) { return entry.name == name; };
    if (std::none_of(entries_.begin(), entries_.end(), same)) {
      throw bad_input("set_adapter: no adapter ", printable(name), " is loaded");
    }
  }
  for (Entry& entry : entries_) entry.active = std::find(names.begin(), names.end(), entry.name) != names.end();
  enabled_ = true;
}

void AdapterSet::apply(const std::shared_ptr<const Checkpoint>& base, std::unique_ptr<Model>& model, Exec& exec) {
  std::vector<AdapterUse> uses;
  for (const Entry& entry : entries_) {
    if (enabled_ && entry.active) uses.push_back(entry.use);
  }
  const std::shared_ptr<const Checkpoint> tensors = with_replacements(base, uses);
  if (tensors == base && !replaced_) {
    model->set_adapters(bind_adapters(*model, uses, exec));
    return;
  }
  std::unique_ptr<Model> made = Model::load(tensors, {}, exec);
  made->set_adapters(bind_adapters(*made, uses, exec));
  model = std::move(made);
  replaced_ = tensors != base;
}

}  // namespace nibble
