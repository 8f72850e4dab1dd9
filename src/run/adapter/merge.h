// Merging adapters into their base: the result is one float checkpoint that needs no adapter. Weights that the base
// stores quantized are decoded first, so the result is larger than the base; requantizing is a step of its own
// (quant/requantize.h). What rounding costs is measured by measure_divergence.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "run/adapter/bind.h"
#include "run/perplexity.h"

namespace nibble {

struct MergeOptions {
  std::filesystem::path out;
  std::optional<DType> dtype;  ///< of all float tensors; none: that of the base's tensor, for decoded weights that of
                               ///< config.json (else of the scheme)
  std::int64_t max_shard_bytes = std::int64_t{5} * 1000 * 1000 * 1000;
  bool force = false;  ///< replace a model that is already in `out`
};

struct MergeResult {
  std::int64_t changed = 0;      ///< weights with a low-rank change
  std::int64_t replaced = 0;     ///< tensors that came whole from an adapter
  std::int64_t dequantized = 0;  ///< weights that the base stores quantized, changed or not
  bool unties = false;           ///< the head got a weight of its own
  std::int64_t bytes = 0;
};

/// A base with its adapters in place: what load_adapted makes, with the parts that merging needs.
struct AdaptedBase {
  std::shared_ptr<const Checkpoint> base;      ///< as it is on the disk
  std::shared_ptr<const Checkpoint> replaced;  ///< with_replacements(base, ...)
  std::unique_ptr<Model> model;                ///< of `replaced`, adapters set
};
AdaptedBase open_adapted(const std::shared_ptr<const Checkpoint>& base, std::span<const AdapterUse> uses,
                         const ModelOptions& options, Exec& exec);

/// Writes the merged checkpoint with config and side files; the folder appears whole or not at all. W + scale * B A is
/// computed in f32 and rounded once. Throws Error(bad_input) where a change has no place in the file (a bias that the
/// base lacks).
MergeResult write_merged(const AdaptedBase& adapted, const MergeOptions& options, Exec& exec,
                         const ProgressCallback& progress = {});

/// `count` sequences of `length` tokens that the model writes itself (temperature 1, fixed seeds): a text to compare
/// models on where there is none at hand.
std::vector<std::vector<std::int32_t>> own_text(Model& model, const Checkpoint& checkpoint, std::int64_t count,
                                                std::int64_t length, Exec& exec);

/// How far `merged` is from `adapted` over all tokens of the sequences but each one's first.
PerplexityResult measure_divergence(const EvalModel& merged, const EvalModel& adapted,
                                    std::span<const std::vector<std::int32_t>> sequences);

}  // namespace nibble
