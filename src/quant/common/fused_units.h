// Linears that inference engines (vLLM, SGLang) load into one matrix, so that all of them need the same settings: q, k
// and v; gate and up; the experts of a mixture. Engines look a matrix's settings up under a name of their own
// (qkv_proj, gate_up_proj, experts), which patterns must match too.
#pragma once
#include <string>
#include <vector>

namespace nibble {

struct FusedUnit {
  std::vector<std::string> modules;  ///< one, or those that are fused, in the given order
  std::string name;                  ///< what engines call it: "model.layers.0.self_attn.qkv_proj"
};

/// The units of these modules, in the order of their first modules. GPTQModel's rule, by names alone.
std::vector<FusedUnit> fused_units(const std::vector<std::string>& modules);

/// A regular expression that matches the modules of the unit and its name, and nothing else but what lies below it:
/// "^model\.layers\.0\.self_attn\.(q_proj|k_proj|v_proj|qkv_proj)$".
std::string pattern_of(const FusedUnit& unit);

}  // namespace nibble
