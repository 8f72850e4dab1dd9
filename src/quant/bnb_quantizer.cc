#include "quant/bnb_quantizer.h"

#include "quant/bnb4/quantizer.h"
#include "quant/bnb8/quantizer.h"

namespace nibble {

std::unique_ptr<ModuleQuantizer> make_bnb_quantizer(const bnb::Config& config, std::int64_t block, bool search_absmax) {
  if (config.load_in_4bit == config.load_in_8bit) {
    throw bad_input("load_in_4bit and load_in_8bit are both ", config.load_in_4bit ? "true" : "false",
                    "; exactly one must be true");
  }
  if (config.has_fp16_weight) {
    throw bad_input("llm_int8_has_fp16_weight keeps 16-bit weights: there is nothing to quantize");
  }
  if (config.load_in_8bit && search_absmax)
    throw bad_input("LLM.int8 has no scales to search: one per row, its largest magnitude");
  if (config.load_in_8bit) return std::make_unique<bnb8::Quantizer>(config);
  const bnb4::WeightSpec spec{.quant_type = config.quant_type.value_or("fp4"),
                              .block = block,
                              .search_absmax = search_absmax,
                              .double_quant = config.double_quant};
  return std::make_unique<bnb4::Quantizer>(spec, config);
}

ModuleSelection selection_of(const bnb::Config& config) {
  ModuleSelection selection;
  selection.matrices_only = true;
  selection.skip = config.skip;
  return selection;
}

}  // namespace nibble
