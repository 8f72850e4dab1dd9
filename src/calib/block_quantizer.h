// Quantizes a model block by block: each linear is solved with the statistics of the inputs that really reach it,
// through the blocks quantized before. For any method that chooses codes from a Gram matrix.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/progress.h"
#include "calib/block_runner.h"
#include "calib/journal.h"
#include "calib/module_report.h"
#include "quant/solved_quantizer.h"

namespace nibble {

/// Names of the linears in the blocks of a checkpoint's model: what can be calibrated. Throws Error(bad_input) when
/// nibble cannot run the model.
std::set<std::string> block_linears(std::shared_ptr<const Checkpoint> source, Exec& exec);

/// Memory that calibration holds beside the Gram matrices and what it quantizes, at most: activations between two
/// blocks, those inside a block for one sequence, and a block's weights. `float_inputs`: BlockTask's is not 0.
std::int64_t calibration_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                               bool float_inputs, Exec& exec);

/// The part of calibration_bytes() that may lie on the disk.
std::int64_t activation_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                              bool float_inputs, Exec& exec);

/// BlockTask::remember_bytes, which only saves time, is at most one in so many bytes of the machine's memory.
inline constexpr std::int64_t kPartForRemembering = 4;

/// What block_quantize() remembers with this BlockTask::remember_bytes, beside calibration_bytes(): inputs of the
/// linears that end an attention or an MLP, over all tokens, as far as there is room for them.
std::int64_t remembered_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                              bool float_inputs, std::int64_t room, Exec& exec);

struct BlockTask {
  std::shared_ptr<const Checkpoint> source;
  std::vector<std::string> modules;                    ///< to quantize
  std::vector<std::vector<std::int32_t>> sequences;    ///< calibration data
  std::function<void(const ModuleReport&)> on_module;  ///< may be empty
  Journal* journal = nullptr;                          ///< where finished work is kept and found; null: nowhere
  std::filesystem::path spill;                         ///< folder for activations between blocks; empty: in memory
  /// How far weights go, before they are solved, towards those that make up for what earlier blocks lost
  /// (float_target.h): 0 not at all, 1 all the way. Runs every block twice as often.
  double float_inputs = 0;
  /// Room for inputs inside a block, from which its replays begin instead of at its start: twice as fast. Of the disk
  /// where activations lie there.
  std::int64_t remember_bytes = 0;
  bool fallback = true;  ///< false: a module that had to be rounded is an error
};

/// Fills `quantizer` with every module. The same tensors for any number of threads. exec.compute is the arithmetic in
/// which the blocks run; statistics and codes are computed in f32 and f64. Throws Error(bad_input) when the data does
/// not fit the model or a weight is not finite, and Error(runtime) naming a module that had to be rounded where the
/// task allows no fallback.
void block_quantize(const BlockTask& task, SolvedQuantizer& quantizer, Exec& exec,
                    const ProgressCallback& progress = {});

/// The same without data, weight by weight, for any checkpoint, whether nibble can run its model or not; the quantizer
/// must not need data. task.sequences is not looked at.
void plain_quantize(const BlockTask& task, SolvedQuantizer& quantizer, Exec& exec,
                    const ProgressCallback& progress = {});

}  // namespace nibble
