#include "api/device_map.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "checkpoint/writer.h"

namespace nibble {
namespace {

bool is_number(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Error no_device(std::string_view option, std::string_view name, std::string_view choices) {
  return bad_input(option, ": there is no device ", printable(name), "; use ", choices);
}

/// The longest key of the map that covers `module`, or nullptr.
const DeviceMap::Modules::value_type* entry_of(const DeviceMap::Modules& map, const std::string& module,
                                               const ModuleNames& modules) {
  const DeviceMap::Modules::value_type* best = nullptr;
  for (const auto& entry : map) {
    const bool longer = best == nullptr || entry.first.size() > best->first.size();
    if (longer && modules.within(module, entry.first)) best = &entry;
  }
  return best;
}

bool is_offload(const Device& device) { return device.name == "cpu" || device.name == "disk"; }

}  // namespace

Target target_of(const DeviceMap& map, std::string_view option) {
  if (const auto& modules = map.modules()) {
    const auto is_ref = [](const auto& entry) { return entry.second.name == "ref"; };
    for (const auto& [module, device] : *modules) {
      if (!is_number(device.name) && !is_offload(device) && device.name != "ref")
        throw no_device(cat(option, ": ", printable(module)), device.name, "a number, cpu, disk or ref");
    }
    if (std::none_of(modules->begin(), modules->end(), is_ref)) return Target::cpu;
    if (std::all_of(modules->begin(), modules->end(), is_ref)) return Target::ref;
    throw bad_input(option, ": ref computes a whole model or none of it");
  }
  static constexpr std::array<std::string_view, 5> names{"auto", "balanced", "balanced_low_0", "sequential", "cpu"};
  const std::string& name = map.device().name;
  if (name == "ref") return Target::ref;
  if (is_number(name) || std::find(names.begin(), names.end(), name) != names.end()) return Target::cpu;
  throw no_device(option, name, "auto, cpu or ref");
}

void check_device_map(const DeviceMap& map, const ModuleNames& modules) {
  if (!map.modules()) return;
  for (const auto& [name, device] : *map.modules()) {
    if (!modules.has(name)) throw bad_input("device_map: the model has no module ", printable(name));
  }
  for (const std::string& module : modules.leaves()) {
    if (entry_of(*map.modules(), module, modules) == nullptr)
      throw bad_input("device_map: no entry gives a device to ", printable(module));
  }
}

std::vector<std::string> offloaded_modules(const DeviceMap& map, const ModuleNames& modules) {
  std::vector<std::string> out;
  if (!map.modules()) return out;
  const auto numbered = [](const auto& entry) { return !is_offload(entry.second); };
  if (std::none_of(map.modules()->begin(), map.modules()->end(), numbered)) return out;
  for (const std::string& module : modules.leaves()) {
    const auto* entry = entry_of(*map.modules(), module, modules);
    if (entry != nullptr && is_offload(entry->second)) out.push_back(module);
  }
  return out;
}

std::optional<std::int64_t> memory_bound(const MaxMemory& memory) {
  std::optional<std::int64_t> sum;
  for (const auto& [device, size] : memory) {
    if (!is_number(device.name) && device.name != "cpu") throw no_device("max_memory", device.name, "a number or cpu");
    std::int64_t bytes = 0;
    try {
      bytes = parse_byte_size(size);
    } catch (const Error& error) {
      throw bad_input("max_memory: ", error.what());
    }
    // One entry is at most 2^60 bytes; a sum beyond that bounds nothing.
    sum = std::min(sum.value_or(0) + bytes, std::int64_t{1} << 60);
  }
  return sum;
}

}  // namespace nibble
