// What a GPTQ checkpoint's config files say (see README.md), parsed and range-checked once.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/common/pattern.h"
#include "quant/common/quant_config.h"

namespace nibble::gptq {

/// How zero points are stored: v1 holds z - 1, v2 holds z.
enum class Zeros : std::uint8_t { v1, v2 };

/// How one module is quantized.
struct ModuleSpec {
  std::int32_t bits = 4;    ///< 2, 3, 4 or 8
  std::int64_t group = -1;  ///< inputs per group, -1: all
  bool sym = true;
  bool desc_act = false;
};

/// One line of `dynamic`: modules whose name the pattern matches from its start.
struct Rule {
  Pattern pattern;
  bool quantized = true;  ///< false: a plain weight ("-:")
  ModuleSpec spec;
};

struct Config {
  ModuleSpec base;
  std::vector<Rule> rules;         ///< the first match wins; those that exclude come first
  std::optional<Zeros> zeros;      ///< as the files state it
  std::string zeros_from;          ///< "checkpoint_format in quantize_config.json"
  std::vector<std::string> notes;  ///< for SchemeReader::notes

  /// nullopt when `dynamic` excludes the module.
  std::optional<ModuleSpec> of(std::string_view module) const;
};

/// Throws Error(bad_input) naming file and key.
Config parse(const QuantConfig& files);

}  // namespace nibble::gptq
