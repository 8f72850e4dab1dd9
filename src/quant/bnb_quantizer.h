// Transformers' BitsAndBytesConfig as a quantizer: NF4, FP4 or LLM.int8, with the library's choice of modules.
#pragma once
#include <memory>

#include "quant/common/bnb_config.h"
#include "quant/quantizer.h"

namespace nibble {

/// The quantizer of `config` (exactly one of load_in_4bit and load_in_8bit must be set; a 4-bit config without
/// quant_type means fp4, as in the library). `block`: weights per 4-bit scale; Transformers has 64 only.
/// `search_absmax`: see bnb4::WeightSpec; for 4 bits only. Throws Error(bad_input) when the parts do not go together.
std::unique_ptr<ModuleQuantizer> make_bnb_quantizer(const bnb::Config& config, std::int64_t block = 64,
                                                    bool search_absmax = false);

/// Linear modules but the output head; with llm_int8_skip_modules, all that the list does not name.
ModuleSelection selection_of(const bnb::Config& config);

}  // namespace nibble
