// --rotate, of commands that make one float model into another checkpoint.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "device/device.h"
#include "run/rotation/rotation.h"

namespace CLI {
class App;
}  // namespace CLI

namespace nibble::cli {

struct RotateFlags {
  bool rotate = false;
  std::uint64_t seed = 0;
};

void add_rotate_flags(CLI::App& command, RotateFlags& flags);

/// The rotated model, in a file without a name beside `out`, with a progress bar. `dtype` as in RotateOptions.
std::shared_ptr<const Checkpoint> rotated(const Rotation& rotation, const RotateFlags& flags, const std::string& out,
                                          std::optional<DType> dtype, Exec& exec);

}  // namespace nibble::cli
