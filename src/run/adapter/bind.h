// Adapters meeting their base: names and shapes are checked against the model, scales and ranks folded into what the
// kernels need.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/adapters.h"
#include "run/adapter/adapter.h"
#include "run/model.h"

namespace nibble {

/// The low-rank changes of all adapters for `model`, one after the other as PEFT applies them: a DoRA adapter's gain,
/// which is that of its own change of the base's weight, also multiplies what came before it. Throws Error(bad_input)
/// naming file and tensor when the model has no such module or one of another shape.
std::shared_ptr<const nn::Adapters> bind_adapters(Model& model, std::span<const AdapterUse> uses, Exec& exec);

/// `base` with the tensors that adapters bring whole (modules_to_save, biases); `base` itself when they bring none, or
/// none that differs. Throws Error(bad_input) naming file and tensor when the base has no such tensor, one of another
/// shape, or two adapters bring the same.
std::shared_ptr<const Checkpoint> with_replacements(std::shared_ptr<const Checkpoint> base,
                                                    std::span<const AdapterUse> uses);

/// The base's model with the adapters in place.
std::unique_ptr<Model> load_adapted(const std::shared_ptr<const Checkpoint>& base, std::span<const AdapterUse> uses,
                                    const ModelOptions& options, Exec& exec);

/// The one of `names` that `name` means: itself, else the only one that ends with "." + name or that name ends with
/// "." + it (checkpoints are also saved without or with other prefixes). nullptr: none, or several.
const std::string* find_name(std::string_view name, std::span<const std::string> names);

/// The module name of the output head where `base` has no tensor of it but shares the token embedding; "" else.
std::string tied_head(const Checkpoint& base);

}  // namespace nibble
