// How far a quantized model's predictions are from its source's, on a text that no calibration sees.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/progress.h"
#include "checkpoint/checkpoint.h"
#include "device/device.h"
#include "run/perplexity.h"

namespace nibble {

struct HeldOutOptions {
  std::int64_t windows = 4;
  std::int64_t ctx = 256;  ///< tokens of one window, every one but the first scored
};

struct HeldOutResult {
  std::optional<Divergence> divergence;
  std::int64_t tokens = 0;  ///< scored
  std::string reason;       ///< why there is no divergence: nibble cannot run the source, or it is no decoder
};

/// Runs both models over a small English text of nibble's own, tokenized as the source says, in exec.compute. Throws
/// Error(bad_input) when the quantized model cannot be run though its source can, or its logits are not finite.
HeldOutResult compare_on_held_out_text(std::shared_ptr<const Checkpoint> source,
                                       std::shared_ptr<const Checkpoint> quantized, const HeldOutOptions& options,
                                       Exec& exec, const ProgressCallback& progress = {});

/// The divergence in nats per token above which a model of so many bits per quantized weight is not what its bits
/// should give: something is broken rather than rounded. Infinity below 2.5 bits, where anything may happen.
double suspicious_divergence(double bits_per_weight);

}  // namespace nibble
