// from_pretrained's quantization_config for a float checkpoint.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "checkpoint/checkpoint.h"
#include "device/device.h"
#include "nibble/nibble.h"

namespace nibble {

/// What a float model shall become, and where its modules go.
struct QuantizeRequest {
  const QuantizationConfig& config;
  const DeviceMap& device_map;
};

/// The checkpoint that saving the quantized model would write, in memory. Throws Error(bad_input) when the config does
/// not fit the model, or is of a method that calibrates and names no data.
std::shared_ptr<const Checkpoint> quantize_on_load(const std::shared_ptr<const Checkpoint>& source,
                                                   const QuantizeRequest& request, Exec& exec,
                                                   const ProgressCallback& progress, std::vector<std::string>& notes);

}  // namespace nibble
