#include "quant/common/module_tensors.h"

#include <algorithm>

namespace nibble::quant {

std::span<const TensorEntry> tensors_below(const Checkpoint& checkpoint, std::string_view prefix) {
  const std::span<const TensorEntry> all = checkpoint.tensors();
  const auto begin =
      std::lower_bound(all.begin(), all.end(), prefix,
                       [](const TensorEntry& entry, std::string_view name) { return entry.name < name; });
  auto end = begin;
  while (end != all.end() && std::string_view(end->name).substr(0, prefix.size()) == prefix) ++end;
  return {begin, end};
}

const TensorEntry& need_tensor(const Checkpoint& checkpoint, const std::string& name) {
  const TensorEntry* entry = checkpoint.find(name);
  if (entry == nullptr) throw bad_input(checkpoint.folder().string(), ": tensor ", printable(name), " is missing");
  return *entry;
}

const TensorEntry& need_tensor(const Checkpoint& checkpoint, const std::string& name, DType dtype, std::int64_t count) {
  const TensorEntry& entry = need_tensor(checkpoint, name);
  if (entry.view.dtype() != dtype || entry.view.count() != count) {
    throw wrong_kind(entry, count, " ", name_of(dtype), " elements");
  }
  return entry;
}

std::optional<View> bias_of(const Checkpoint& checkpoint, const std::string& module, std::int64_t rows) {
  const TensorEntry* bias = checkpoint.find(module + ".bias");
  if (bias == nullptr) return std::nullopt;
  const View& view = bias->view;
  const bool is_value = view.dtype() == DType::f32 || view.dtype() == DType::f16 || view.dtype() == DType::bf16;
  if (!is_value || view.rank() != 1 || view.count() != rows) throw wrong_kind(*bias, rows, " floats");
  return view;
}

void check_size(const TensorEntry& entry, std::int64_t rows, std::int64_t cols, std::int64_t expected_rows,
                std::int64_t expected_cols) {
  if ((expected_rows == 0 || expected_rows == rows) && (expected_cols == 0 || expected_cols == cols)) return;
  throw wrong_tensor(entry, "holds a weight of shape ", to_string({rows, cols}), ", but the model's config gives ",
                     to_string({expected_rows, expected_cols}));
}

}  // namespace nibble::quant
