#include "quant/select_modules.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::string_view kWeight = ".weight";

std::string_view last_component(std::string_view module) {
  const std::size_t dot = module.rfind('.');
  return dot == std::string_view::npos ? module : module.substr(dot + 1);
}

template <std::size_t N>
bool one_of(std::string_view name, const std::array<std::string_view, N>& list) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

/// Lookup tables are matrices too; their names give them away in every model family.
bool is_embedding(std::string_view module) {
  static constexpr std::array<std::string_view, 4> names{"wte", "wpe", "shared", "relative_attention_bias"};
  const std::string_view last = last_component(module);
  return last.find("embed") != std::string_view::npos ? !one_of(last, std::array<std::string_view, 1>{"embed_out"})
                                                      : one_of(last, names);
}

/// GPT-2 and its relatives hold [inputs, outputs] matrices (Conv1D), which are no linear modules to quantizers.
bool is_transposed(const Json& config, std::string_view module) {
  static constexpr std::array<std::string_view, 4> families{"gpt2", "openai-gpt", "imagegpt", "decision_transformer"};
  static constexpr std::array<std::string_view, 4> names{"c_attn", "c_proj", "c_fc", "q_attn"};
  const Json* type = config.get("model_type");
  return type != nullptr && type->is_string() && one_of(type->string("model_type"), families) &&
         one_of(last_component(module), names);
}

bool is_quantizable(const View& view) {
  const bool value = view.dtype() == DType::f32 || view.dtype() == DType::f16 || view.dtype() == DType::bf16;
  return value && (view.rank() == 2 || view.rank() == 4) && !view.empty();
}

bool matches_any(const std::string& name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_pattern(name, pattern); });
}

/// Digits compare as numbers.
bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    std::size_t x = i, y = j;
    while (x < a.size() && digit(a[x])) ++x;
    while (y < b.size() && digit(b[y])) ++y;
    if (x - i != y - j) return x - i < y - j;
    const int order = a.compare(i, x - i, b, j, y - j);
    if (order != 0) return order < 0;
    i = x, j = y;
  }
  return a.size() - i < b.size() - j;
}

/// The embedding that a tied model uses as its head; nullptr when there is no such thing.
const TensorEntry* tied_embedding(const Checkpoint& checkpoint) {
  const Json* tied = checkpoint.config().get("tie_word_embeddings");
  if (checkpoint.find("lm_head.weight") != nullptr || tied == nullptr || !tied->is_bool() || !tied->boolean("tie")) {
    return nullptr;
  }
  for (const char* name : {"model.embed_tokens.weight", "transformer.wte.weight", "model.decoder.embed_tokens.weight",
                           "embed_tokens.weight", "wte.weight"}) {
    const TensorEntry* found = checkpoint.find(name);
    if (found != nullptr && found->view.rank() == 2 && is_quantizable(found->view)) return found;
  }
  return nullptr;
}

/// Whether the output head is wanted unless a pattern says so.
bool wants_head(const ModuleSelection& selection) { return selection.lm_head || selection.skip.has_value(); }

/// Every module that patterns may choose from.
std::vector<SelectedModule> candidates(const Checkpoint& checkpoint, const ModuleSelection& selection,
                                       SelectionResult& result) {
  std::vector<SelectedModule> all;
  std::size_t transposed = 0;
  for (const TensorEntry& entry : checkpoint.tensors()) {
    const std::string_view name = entry.name;
    if (name.size() <= kWeight.size() || name.substr(name.size() - kWeight.size()) != kWeight) continue;
    const std::string module(name.substr(0, name.size() - kWeight.size()));
    if (!is_quantizable(entry.view) || is_embedding(module)) continue;
    if (selection.matrices_only && entry.view.rank() != 2) continue;
    if (selection.only && !selection.only->contains(module)) continue;
    if (is_transposed(checkpoint.config(), module)) {
      ++transposed;
      result.kept.push_back(module);
      continue;
    }
    all.push_back({module, &entry, false});
  }
  const TensorEntry* embedding = tied_embedding(checkpoint);
  if (embedding != nullptr && !(selection.only && !selection.only->contains("lm_head")))
    all.push_back({"lm_head", embedding, true});
  if (transposed > 0)
    result.notes.push_back(cat(transposed, " Conv1D weights of this family are not linear modules: kept"));
  std::sort(all.begin(), all.end(),
            [](const SelectedModule& a, const SelectedModule& b) { return natural_less(a.name, b.name); });
  return all;
}

void check_patterns(const std::vector<SelectedModule>& all, const std::vector<std::string>& patterns,
                    const char* flag) {
  for (const std::string& pattern : patterns) {
    const auto hit = [&](const SelectedModule& module) { return matches_pattern(module.name, pattern); };
    if (std::none_of(all.begin(), all.end(), hit)) {
      throw bad_input(flag, " pattern \"", printable(pattern), "\" matches no linear module");
    }
  }
}

/// A recipe while it is asked about modules.
class RecipeUse {
 public:
  explicit RecipeUse(const std::optional<ModuleRecipe>& recipe) : recipe_(recipe ? &*recipe : nullptr) {}

  bool keeps(const std::string& module) {
    const RecipeRule* rule = recipe_ == nullptr ? nullptr : recipe_->find(module);
    decided_.insert(rule);
    return rule != nullptr && !rule->quantized;
  }

  void check_rules() const {
    for (std::size_t i = 0; recipe_ != nullptr && i < recipe_->rules.size(); ++i) {
      if (decided_.contains(&recipe_->rules[i])) continue;
      throw bad_input(recipe_->rules[i].where,
                      " decides about no module: it matches none that would be quantized, or patterns before it do");
    }
  }

 private:
  const ModuleRecipe* recipe_;
  std::set<const RecipeRule*> decided_;
};

}  // namespace

bool is_output_head(std::string_view module) {
  return one_of(last_component(module), std::array<std::string_view, 2>{"lm_head", "embed_out"});
}

bool matches_pattern(const std::string& name, const std::string& pattern) {
  return ::fnmatch(pattern.c_str(), name.c_str(), FNM_NOESCAPE) == 0;
}

SelectionResult select_modules(const Checkpoint& checkpoint, const ModuleSelection& selection) {
  SelectionResult result;
  const std::vector<SelectedModule> all = candidates(checkpoint, selection, result);
  check_patterns(all, selection.include, "include");
  check_patterns(all, selection.exclude, "exclude");
  RecipeUse recipe(selection.recipe);
  for (const SelectedModule& module : all) {
    const bool excluded =
        matches_any(module.name, selection.exclude) || (selection.skip && selection.skip->matches(module.name));
    const bool included = !selection.include.empty() && matches_any(module.name, selection.include);
    const bool wanted =
        is_output_head(module.name) ? included || wants_head(selection) : included || selection.include.empty();
    if (wanted && !excluded && !recipe.keeps(module.name)) {
      result.modules.push_back(module);
    } else {
      result.kept.push_back(module.name);
    }
  }
  recipe.check_rules();
  if (result.modules.empty()) {
    throw bad_input(checkpoint.folder().string(), ": no linear module to quantize (", all.size(),
                    " before include and exclude patterns", result.notes.empty() ? "" : "; ",
                    result.notes.empty() ? "" : result.notes.front(), ")");
  }
  return result;
}

}  // namespace nibble
