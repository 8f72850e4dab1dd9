// Rewrites a quantized checkpoint: in its own format, in another variant of it, or as plain floats.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "quant/scheme.h"

namespace nibble {

struct ConvertOptions {
  std::filesystem::path out;
  /// "same" (the tensors as nibble stores them), a variant of the scheme ("gptq_v2", "gemv"), or "f32", "f16", "bf16".
  std::string to = "same";
  std::int64_t max_shard_bytes = std::int64_t{5} * 1000 * 1000 * 1000;
  bool force = false;  ///< replace a model that is already in `out`
  /// The module's size by the model's config, for formats that do not hold it; may be empty.
  std::function<LinearSize(const std::string& module)> size_of;
  /// Whether a plain checkpoint of this family stores the module's weight as [inputs, outputs] (GPT-2); may be empty.
  std::function<bool(const std::string& module)> transposed;
};

struct ConvertReport {
  std::string scheme;             ///< of the source; "" for plain floats
  std::string to;                 ///< what was written: "awq gemv", "bf16"
  std::int64_t modules = 0;       ///< quantized modules of the source
  std::int64_t tensors = 0;       ///< written
  std::int64_t same_tensors = 0;  ///< of them, those whose bytes are the source's
  std::int64_t bytes_in = 0, bytes_out = 0;
  /// Values of quantized weights that the new checkpoint holds otherwise, as it reads back: rounding to a float type,
  /// and AWQ's scaled zero points.
  std::int64_t values = 0, changed = 0;
  double largest_change = 0;
  std::vector<std::string> notes;
};

/// Writes options.out whole or not at all, opens it again and compares every tensor and every decoded weight with the
/// source before it returns. Throws Error(bad_input) when the scheme cannot be written that way.
ConvertReport convert_checkpoint(std::shared_ptr<const Checkpoint> source, const ConvertOptions& options, Exec& exec,
                                 const ProgressCallback& progress = {});

}  // namespace nibble
