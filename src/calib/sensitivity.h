// How much a decoder's predictions change when one part of it is quantized, for several ways of quantizing it: what
// mixed precision is chosen by.
//
// For every part, the Kullback-Leibler divergence of the model's predictions is measured with this part alone quantized
// in one way, exactly, on a few calibration sequences. For small changes it is proportional to the squared error of the
// part's outputs, tr(dW X'X dW') over its weights, so that the other ways are told from that one by these errors alone.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "quant/solved_quantizer.h"

namespace nibble {

struct SensitivityTask {
  std::shared_ptr<const Checkpoint> source;
  /// Modules that are quantized alike: linears of blocks, or the output head by itself.
  std::vector<std::vector<std::string>> units;
  std::vector<std::vector<std::int32_t>> sequences;  ///< calibration data; the first few thousand tokens serve
  /// Ways to quantize; each solves any of the modules from its inputs in the float model.
  std::vector<SolvedQuantizer*> candidates;
  std::size_t reference = 0;  ///< the candidate whose divergence is measured; neither the coarsest nor the finest
};

/// Divergence in nats per token, [units][candidates]. The same numbers for any number of threads. Throws
/// Error(bad_input) when nibble cannot run the model, a module is none of its linears, or the data does not fit.
std::vector<std::vector<double>> measure_sensitivity(const SensitivityTask& task, Exec& exec,
                                                     const ProgressCallback& progress = {});

}  // namespace nibble
