// Quantizing again what was decoded: a quantizer with the settings of a quantized checkpoint.
#pragma once
#include <memory>
#include <string>

#include "quant/quantizer.h"
#include "quant/scheme.h"
#include "quant/select_modules.h"

namespace nibble {

struct Requantizer {
  std::unique_ptr<ModuleQuantizer> quantizer;
  ModuleSelection selection;  ///< the modules that the checkpoint quantizes, no others
};

/// Throws Error(bad_input) when the checkpoint is not quantized, its scheme has no quantizer here, or its modules are
/// not all quantized alike.
Requantizer make_requantizer(const WeightStore& quantized);

}  // namespace nibble
