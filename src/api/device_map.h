// device_map, max_memory and .to(): the names that Transformers' users write, checked against the devices there are.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/module_names.h"
#include "device/device.h"
#include "nibble/config.h"

namespace nibble {

/// Where a whole map runs. Throws Error(bad_input) for a device that nibble has not; `option` begins the message.
Target target_of(const DeviceMap& map, std::string_view option);

/// Throws Error(bad_input) when a custom map names a module that the model has not, or leaves one without a device.
void check_device_map(const DeviceMap& map, const ModuleNames& modules);

/// The modules that a custom map gives to the "cpu" or the "disk" while others are on a numbered device: what
/// bitsandbytes leaves in floats.
std::vector<std::string> offloaded_modules(const DeviceMap& map, const ModuleNames& modules);

/// The sum of all entries; nullopt for an empty map. Throws Error(bad_input) for what is no size or no device.
std::optional<std::int64_t> memory_bound(const MaxMemory& memory);

}  // namespace nibble
