// AWQ over a model: block by block, what its linears see is observed, the factors of its channels and the bounds of its
// groups are searched, and its weights are rounded. Inputs come through the blocks as they were: unlike GPTQ, errors
// are not passed on.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "calib/awq_steps.h"
#include "calib/module_report.h"

namespace nibble {

class Journal;

enum class AwqLoss : std::uint8_t {
  gram,    ///< of the outputs of the step's linears, from the Gram matrix of their input
  output,  ///< AutoAWQ's: of the output of the attention, the MLP or the linear, by running it
};

/// How the search of one step ended.
struct AwqReport {
  std::vector<std::string> modules;
  std::int64_t tokens = 0;          ///< that reached them
  bool searched = false;            ///< false: nothing in front of them can take factors, or no token reached them
  double ratio = -1;                ///< chosen; -1: no factors
  double loss = 0, plain_loss = 0;  ///< mean squared error with the factors, and without any
  double seconds = 0;               ///< that the search took
  double running = 0;               ///< of them, in which parts of the block ran over the data: AwqLoss::output
  bool restored = false;            ///< from the journal of an earlier run
};

struct AwqTask {
  std::shared_ptr<const Checkpoint> source;
  std::vector<std::string> modules;                  ///< to quantize
  std::vector<std::vector<std::int32_t>> sequences;  ///< calibration data
  std::filesystem::path spill{};                     ///< folder for activations between blocks; empty: in memory
  std::int64_t remember_bytes = 0;                   ///< as BlockTask's, with AwqLoss::gram
  AwqLoss loss = AwqLoss::gram;
  std::function<void(const AwqReport&)> on_step;       ///< may be empty
  std::function<void(const ModuleReport&)> on_module;  ///< may be empty; called when a block's steps are done
  Journal* journal = nullptr;                          ///< where finished blocks are kept and found; null: nowhere
  bool fallback = true;                                ///< false: a module that no token reached is an error
  /// For estimates: only so many rows of each weight are looked at, what comes out is of no use, and the reports'
  /// seconds are scaled up to all rows. 0: all.
  std::int64_t sample_rows = 0;
};

/// Fills `quantizer` with every module and with what replaces norms, biases and routers. The same tensors for any
/// number of threads, and whether or not an earlier run was stopped. exec.compute is the arithmetic in which the blocks
/// run; statistics are sums in f32 and f64. Throws Error(bad_input) when the data does not fit the model or a weight is
/// not finite, and Error(runtime) naming a module that no token reached where the task allows no fallback.
void awq_quantize(const AwqTask& task, awq::Quantizer& quantizer, Exec& exec, const ProgressCallback& progress = {});

}  // namespace nibble
