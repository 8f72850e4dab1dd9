// Tensors that adapters bring whole, laid over the base's checkpoint.
#include <algorithm>
#include <array>
#include <map>

#include "base/error.h"
#include "models/arch.h"
#include "models/model_config.h"
#include "quant/scheme.h"
#include "run/adapter/bind.h"

namespace nibble {
namespace {

struct Chosen {
  const Replacement* replacement = nullptr;
  const Adapter* adapter = nullptr;
  const TensorEntry* base = nullptr;  ///< null: the base shares another tensor (a tied head)
};

template <class... Args>
Error bad(const Chosen& chosen, const Args&... args) {
  return bad_input(chosen.adapter->file(), ": tensor ", printable(chosen.replacement->tensor), ": ", args...);
}

bool same_values(const View& a, const View& b) {
  constexpr std::int64_t kChunk = 2048;
  std::array<float, kChunk> x, y;
  for (std::int64_t at = 0; at < a.count(); at += kChunk) {
    const std::int64_t count = std::min(kChunk, a.count() - at);
    const auto chunk = [&](const View& view, float* to) {
      convert_to_f32(view.dtype(), view.data() + static_cast<std::size_t>(at) * size_of(view.dtype()), to, count);
    };
    chunk(a, x.data());
    chunk(b, y.data());
    if (!std::equal(x.begin(), x.begin() + count, y.begin())) return false;
  }
  return true;
}

std::string module_of(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

/// The base's token embedding, with or without the family's prefix; nullptr for unknown families.
const TensorEntry* token_table(const Checkpoint& base, const models::ArchSpec& arch) {
  const models::Name* tokens = arch.find(models::Slot::tokens);
  if (tokens == nullptr) return nullptr;
  for (const std::string_view prefix : arch.prefixes) {
    if (const TensorEntry* found = base.find(cat(prefix, tokens->module, ".weight"))) return found;
  }
  return nullptr;
}

/// Keeps what the new checkpoint's views point into.
struct Owner {
  std::shared_ptr<const void> base;
  std::vector<std::shared_ptr<const void>> adapters;
};

class Overlay {
 public:
  explicit Overlay(std::shared_ptr<const Checkpoint> base) : base_(std::move(base)), store_(base_) {
    for (const TensorEntry& entry : base_->tensors()) names_.push_back(entry.name);
    arch_ = models::find_arch(models::architecture_of(base_->config()));
    head_ = tied_head(*base_);
  }

  void add(const AdapterUse& use) {
    for (const Replacement& replacement : use.adapter->replacements()) {
      Chosen chosen{&replacement, use.adapter.get(), nullptr};
      const std::string name = target_of(chosen);
      const View& expected = chosen.base->view;
      if (replacement.view.shape() != expected.shape()) {
        throw bad(chosen, "has shape ", to_string(replacement.view.shape()), ", but the base's ", name, " has ",
                  to_string(expected.shape()));
      }
      if (same_values(replacement.view, expected)) continue;
      const auto [at, fresh] = chosen_.emplace(name, chosen);
      if (!fresh) throw bad(chosen, name, " is also replaced by ", at->second.adapter->file());
    }
    owner_.adapters.push_back(use.adapter->owner());
  }

  std::shared_ptr<const Checkpoint> finish() {
    if (chosen_.empty()) return base_;
    CheckpointParts parts;
    parts.folder = base_->folder();
    parts.config = base_->config();
    parts.metadata = base_->metadata();
    parts.files = base_->files();
    for (const TensorEntry& entry : base_->tensors()) {
      const auto found = chosen_.find(entry.name);
      parts.tensors.push_back(found == chosen_.end() ? entry : entry_of(entry.name, found->second));
      // A saved copy of a tied embedding is one of its own: the head keeps the base's values.
      const bool splits = found != chosen_.end() && found->second.replacement->own_copy && !head_.empty() &&
                          arch_ != nullptr && token_table(*base_, *arch_) == base_->find(entry.name) &&
                          chosen_.find(head_ + ".weight") == chosen_.end();
      if (!splits) continue;
      TensorEntry head = entry;
      head.name = head_ + ".weight";
      parts.tensors.push_back(std::move(head));
      parts.config.set("tie_word_embeddings", false);
    }
    if (const auto head = chosen_.find(head_ + ".weight"); !head_.empty() && head != chosen_.end()) {
      parts.tensors.push_back(entry_of(head_ + ".weight", head->second));
      parts.config.set("tie_word_embeddings", false);
    }
    owner_.base = base_->owner();
    parts.owner = std::make_shared<Owner>(std::move(owner_));
    return Checkpoint::in_memory(std::move(parts));
  }

 private:
  static TensorEntry entry_of(const std::string& name, const Chosen& chosen) {
    return {name, chosen.replacement->view, chosen.adapter->file(), {}};
  }

  /// The base's tensor that is replaced; sets chosen.base to it, or to the one that a tied head shares.
  std::string target_of(Chosen& chosen) const {
    const std::string& wanted = chosen.replacement->name;
    const std::string* name = find_name(wanted, names_);
    const std::string module = module_of(name == nullptr ? wanted : *name);
    const bool weight = wanted.size() > 7 && wanted.compare(wanted.size() - 7, 7, ".weight") == 0;
    if (weight && store_.reader() != nullptr && store_.reader()->has(module)) {
      throw bad(chosen, "replaces ", printable(module), ", which the base stores quantized: not supported");
    }
    if (name != nullptr) {
      chosen.base = base_->find(*name);
      return *name;
    }
    if (weight && !head_.empty() && module == head_) {
      chosen.base = token_table(*base_, *arch_);
      return wanted;
    }
    throw bad(chosen, "the base model has no tensor ", printable(wanted));
  }

  std::shared_ptr<const Checkpoint> base_;
  WeightStore store_;
  const models::ArchSpec* arch_ = nullptr;
  std::vector<std::string> names_;
  std::string head_;
  std::map<std::string, Chosen> chosen_;
  Owner owner_;
};

}  // namespace

std::string tied_head(const Checkpoint& base) {
  const models::ArchSpec* arch = models::find_arch(models::architecture_of(base.config()));
  const models::Name* head = arch == nullptr ? nullptr : arch->find(models::Slot::head);
  if (head == nullptr || token_table(base, *arch) == nullptr) return "";
  const Json* tied = base.config().get("tie_word_embeddings");
  const bool ties = tied != nullptr && tied->is_bool() ? tied->boolean("") : arch->defaults.tie_embeddings;
  const std::string module(head->module);
  const bool stored = std::any_of(base.tensors().begin(), base.tensors().end(), [&](const TensorEntry& entry) {
    const std::string_view name(entry.name);
    return name.substr(0, module.size() + 1) == module + "." || name.find("." + module + ".") != std::string_view::npos;
  });
  return ties && !stored ? module : "";
}

std::shared_ptr<const Checkpoint> with_replacements(std::shared_ptr<const Checkpoint> base,
                                                    std::span<const AdapterUse> uses) {
  const auto brings = [](const AdapterUse& use) { return use.scale != 0 && !use.adapter->replacements().empty(); };
  if (std::none_of(uses.begin(), uses.end(), brings)) return base;
  Overlay overlay(std::move(base));
  for (const AdapterUse& use : uses) {
    if (brings(use)) overlay.add(use);
  }
  return overlay.finish();
}

}  // namespace nibble
