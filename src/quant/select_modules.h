// Which weights of a checkpoint are those of linear (and convolution) modules, from names and shapes alone, so that any
// model can be quantized, known to nibble or not.
#pragma once
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

struct ModuleSelection {
  std::vector<std::string> include;  ///< fnmatch patterns on module names; when given, one must match
  std::vector<std::string> exclude;  ///< fnmatch patterns; none may match
  bool lm_head = false;              ///< also the output head, which stays in floats unless a pattern includes it
};

struct SelectedModule {
  std::string name;           ///< "model.layers.0.self_attn.q_proj"
  const TensorEntry* weight;  ///< float [N, K], or [N, C, H, W] of a 2-D convolution
  bool tied = false;          ///< the head of a tied model: `weight` is the embedding
};

struct SelectionResult {
  std::vector<SelectedModule> modules;  ///< in natural order of names (layers.2 before layers.10)
  std::vector<std::string> notes;       ///< why modules that might be expected are not there
};

/// Selects `X`.weight that are float matrices or 4-D convolution weights; embeddings (by name) never. Throws
/// Error(bad_input) when nothing is left, or a pattern matches no module.
SelectionResult select_modules(const Checkpoint& checkpoint, const ModuleSelection& selection);

/// Whether a module name matches a shell pattern (*, ?, [seq], [!seq]); * also matches dots.
bool matches_pattern(const std::string& name, const std::string& pattern);

}  // namespace nibble
