#include "api/module_names.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "models/arch.h"

namespace nibble {
namespace {

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

/// Whether `name` is `module` or below it.
bool lies_in(std::string_view name, std::string_view module) {
  return module.empty() || name == module || (starts_with(name, module) && name[module.size()] == '.');
}

std::optional<long> number_of(std::string_view part) {
  long value = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
  if (part.empty() || error != std::errc() || end != part.data() + part.size()) return std::nullopt;
  return value;
}

std::string_view without_wrap(std::string_view name) {
  for (const std::string_view wrap : {std::string_view("module."), std::string_view("_orig_mod.")}) {
    if (starts_with(name, wrap)) return name.substr(wrap.size());
  }
  return name;
}

/// Parts of a quantized weight hang below its name: "q_proj.weight.absmax" belongs to q_proj.
std::string_view module_of(std::string_view tensor) {
  const std::size_t weight = tensor.rfind(".weight.");
  const std::size_t end = weight != std::string_view::npos ? weight : tensor.rfind('.');
  return end == std::string_view::npos ? tensor : tensor.substr(0, end);
}

}  // namespace

ModuleNames::ModuleNames(const Checkpoint& checkpoint) {
  if (const models::ArchSpec* arch = models::find_arch(models::architecture_of(checkpoint.config()))) {
    prefixes_.assign(arch->prefixes.begin(), arch->prefixes.end());
    if (const models::Name* head = arch->find(models::Slot::head)) head_ = head->module;
    if (const models::Name* tokens = arch->find(models::Slot::tokens)) tokens_ = full(tokens->module);
  }
  std::set<std::string> modules;
  if (!head_.empty()) modules.insert(head_);
  for (const TensorEntry& entry : checkpoint.tensors()) {
    std::string name = full(without_wrap(entry.name));
    modules.insert(std::string(module_of(name)));
    tensors_.emplace(std::move(name), &entry);
  }
  leaves_.assign(modules.begin(), modules.end());
}

std::string ModuleNames::full(std::string_view name) const {
  if (!head_.empty() && lies_in(name, head_)) return std::string(name);
  for (const std::string_view prefix : prefixes_) {
    if (!prefix.empty() && starts_with(name, prefix))
      return std::string(prefixes_.front()).append(name.substr(prefix.size()));
  }
  return std::string(prefixes_.front()).append(name);
}

bool ModuleNames::within(std::string_view module, std::string_view name) const {
  return lies_in(module, name) || (!name.empty() && lies_in(module, full(name)));
}

bool ModuleNames::has(std::string_view name) const {
  return std::any_of(leaves_.begin(), leaves_.end(), [&](const std::string& leaf) { return within(leaf, name); });
}

/// Negative numbers replaced: "layers.-1.x" is "layers.11.x" of twelve.
std::string ModuleNames::counted(std::string_view name) const {
  std::string out;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t dot = std::min(name.find('.', at), name.size());
    const std::string_view part = name.substr(at, dot - at);
    if (!out.empty()) out += '.';
    const std::optional<long> number = number_of(part);
    if (number && *number < 0) {
      long count = 0;
      for (const auto& entry : tensors_) {
        if (!starts_with(entry.first, out)) continue;
        const std::string_view rest = std::string_view(entry.first).substr(out.size());
        if (const auto index = number_of(rest.substr(0, rest.find('.')))) count = std::max(count, *index + 1);
      }
      out += std::to_string(count + *number);
    } else {
      out += part;
    }
    at = dot + 1;
  }
  return out;
}

const TensorEntry* ModuleNames::tensor(std::string_view name) const {
  const std::string wanted = counted(full(name));
  if (const auto found = tensors_.find(wanted); found != tensors_.end()) return found->second;
  if (head_.empty() || wanted != head_ + ".weight") return nullptr;
  const auto tied = tensors_.find(tokens_ + ".weight");
  return tied == tensors_.end() ? nullptr : tied->second;
}

}  // namespace nibble
