// The tensors of one module of a checkpoint, for readers of formats: finding them, and refusing them with one clear
// line.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"

namespace nibble::quant {

/// All tensors whose name begins with `prefix`.
std::span<const TensorEntry> tensors_below(const Checkpoint& checkpoint, std::string_view prefix);

/// "<file>: tensor <name>: <reason>"
template <class... Args>
Error wrong_tensor(const TensorEntry& entry, const Args&... reason) {
  return bad_input(entry.file.string(), ": tensor ", printable(entry.name), ": ", reason...);
}

/// "..., found f32 [2, 3]"
template <class... Args>
Error wrong_kind(const TensorEntry& entry, const Args&... expected) {
  return wrong_tensor(entry, "expected ", expected..., ", found ", name_of(entry.view.dtype()), " ",
                      to_string(entry.view.shape()));
}

/// Error(bad_input, "<folder>: tensor <name> is missing") when there is none.
const TensorEntry& need_tensor(const Checkpoint& checkpoint, const std::string& name);

/// The tensor `name` of exactly this type and number of elements.
const TensorEntry& need_tensor(const Checkpoint& checkpoint, const std::string& name, DType dtype, std::int64_t count);

/// `module`.bias, if there is one: f32, f16 or bf16 [rows].
std::optional<View> bias_of(const Checkpoint& checkpoint, const std::string& module, std::int64_t rows);

/// Refuses `entry` when its weight is not of the size that the model's config gives (0: unknown).
void check_size(const TensorEntry& entry, std::int64_t rows, std::int64_t cols, std::int64_t expected_rows,
                std::int64_t expected_cols);

}  // namespace nibble::quant
