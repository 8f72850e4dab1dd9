// adapter_config.json of a LoRA adapter in the format of the PEFT library, read once and range-checked.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "quant/common/pattern.h"

namespace nibble {

/// Which modules a config names: a list of names or dotted endings of names, or one regular expression for whole names.
class AdapterTargets {
 public:
  AdapterTargets() = default;
  /// From a JSON list of strings, a string, or null (nothing). `where` begins messages.
  AdapterTargets(const Json* value, const std::string& where);
  bool given() const { return given_; }
  bool matches(std::string_view module) const;

 private:
  bool given_ = false;
  bool all_linear_ = false;  ///< "all-linear": any module, as far as a name tells
  std::vector<std::string> endings_;
  std::optional<Pattern> whole_;
};

/// Rank or alpha of the modules whose name a pattern matches; the first pattern counts.
class AdapterPattern {
 public:
  AdapterPattern() = default;
  void add(const std::string& pattern, double value, const std::string& where);
  double of(std::string_view module, double otherwise) const;

 private:
  std::vector<std::pair<Pattern, double>> patterns_;
};

struct AdapterConfig {
  std::int64_t r = 8;
  double lora_alpha = 8;
  bool use_rslora = false, use_dora = false, lora_bias = false;
  std::string bias = "none";  ///< none, all, lora_only: which biases of the base the adapter brings
  AdapterPattern rank_pattern, alpha_pattern;
  AdapterTargets target_modules, exclude_modules;
  std::vector<std::string> modules_to_save;
  std::vector<std::int64_t> layers;  ///< layers_to_transform; empty: all
  std::string base_model;            ///< base_model_name_or_path, for people

  /// Whether the config lets PEFT adapt `module` (true when it names no targets, as old files do).
  bool targets(std::string_view module) const;
  /// Whether `module` or one that holds it is saved whole: its name ends with an entry, not only at a dot.
  bool saves(std::string_view module) const;
  std::int64_t rank_of(std::string_view module) const;
  /// alpha / r, or alpha / sqrt(r) with use_rslora.
  double scaling_of(std::string_view module) const;
};

/// `file` begins every message. Throws Error(bad_input) naming the field: a peft_type other than LORA, a rank below 1,
/// a field of a variant that changes results and is not supported.
AdapterConfig parse_adapter_config(const Json& json, const std::string& file);

}  // namespace nibble
