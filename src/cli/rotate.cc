#include "cli/rotate.h"

#include <CLI/CLI.hpp>

#include <filesystem>

#include "base/error.h"
#include "cli/progress_bar.h"

namespace nibble::cli {
namespace fs = std::filesystem;

void add_rotate_flags(CLI::App& command, RotateFlags& flags) {
  const char* const group = "Rotation (Llama, Mistral, Mixtral, Qwen2, Qwen3)";
  auto* rotate = command.add_flag("--rotate", flags.rotate,
                                  "First turn the model into another basis, in which no channel stands out (QuaRot, "
                                  "SpinQuant): the same function, and nothing more to do when it runs");
  rotate->group(group);
  command.add_option("--rotate-seed", flags.seed, "Of the random basis")
      ->needs(rotate)
      ->capture_default_str()
      ->group(group);
}

std::shared_ptr<const Checkpoint> rotated(const Rotation& rotation, const RotateFlags& flags, const std::string& out,
                                          std::optional<DType> dtype, Exec& exec) {
  RotateOptions options;
  options.seed = flags.seed;
  options.dtype = dtype;
  // Not in `out` itself: a job that fails leaves no folder behind.
  const fs::path place = fs::absolute(out).lexically_normal();
  options.folder = (place.has_filename() ? place : place.parent_path()).parent_path();
  std::error_code failed;
  fs::create_directories(options.folder, failed);
  if (failed) throw runtime_failure("cannot create ", options.folder.string(), ": ", failed.message());
  ProgressBar bar;
  return rotation.rotate(options, exec.pool, bar.callback());
}

}  // namespace nibble::cli
