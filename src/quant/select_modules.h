// Which weights of a checkpoint are those of linear (and convolution) modules, from names and shapes alone, so that any
// model can be quantized, known to nibble or not.
#pragma once
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "quant/common/module_recipe.h"
#include "quant/common/name_patterns.h"

namespace nibble {

struct ModuleSelection {
  std::vector<std::string> include{};  ///< fnmatch patterns on module names; when given, one must match
  std::vector<std::string> exclude{};  ///< fnmatch patterns; none may match
  bool lm_head = false;                ///< also the output head, which stays in floats unless a pattern includes it
  bool matrices_only = false;          ///< formats without convolutions: 4-D weights are no candidates
  /// Methods that work on some modules only (linears of blocks): no others are candidates.
  std::optional<std::set<std::string>> only{};
  /// Transformers' list of modules that stay in floats: it also decides on the output head.
  std::optional<quant::NamePatterns> skip{};
  /// Modules that it keeps are not quantized. Each of its rules must decide about some module that would be.
  std::optional<ModuleRecipe> recipe{};
};

struct SelectedModule {
  std::string name;           ///< "model.layers.0.self_attn.q_proj"
  const TensorEntry* weight;  ///< float [N, K], or [N, C, H, W] of a 2-D convolution
  bool tied = false;          ///< the head of a tied model: `weight` is the embedding
};

struct SelectionResult {
  std::vector<SelectedModule> modules;  ///< in natural order of names (layers.2 before layers.10)
  std::vector<std::string> kept;        ///< linear modules that stay in floats, in the same order
  std::vector<std::string> notes;       ///< why modules that might be expected are not there
};

/// Selects `X`.weight that are float matrices or 4-D convolution weights; embeddings (by name) never. Throws
/// Error(bad_input) when nothing is left, a pattern matches no module, or a rule of the recipe decides about none.
SelectionResult select_modules(const Checkpoint& checkpoint, const ModuleSelection& selection);

/// Whether a module is the one that gives logits, by its name.
bool is_output_head(std::string_view module);

/// Whether a module name matches a shell pattern (*, ?, [seq], [!seq]); * also matches dots.
bool matches_pattern(const std::string& name, const std::string& pattern);

}  // namespace nibble
