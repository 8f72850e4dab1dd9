// The output head of a decoder, quantized by a method that solves weights one by one (quant/solved_quantizer.h). It is
// part of no block, so that calib/block_quantizer.h leaves it alone.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "calib/module_report.h"
#include "quant/solved_quantizer.h"

namespace nibble {

struct HeadTask {
  std::shared_ptr<const Checkpoint> source;
  std::string module;                   ///< "lm_head"
  const TensorEntry* weight = nullptr;  ///< its floats; a tied model's embedding
  /// Calibration data: the float model runs over it. Empty: there is none, and the quantizer must not need any.
  std::vector<std::vector<std::int32_t>> sequences;
};

/// Solves the head with the inputs that it has in the float model (what blocks before it lost is not made up for) and
/// adds it to `quantizer`. The same tensors for any number of threads. Throws Error(bad_input) when the data does not
/// fit the model, it is not the model's head, or a weight is not finite.
ModuleReport quantize_head(const HeadTask& task, SolvedQuantizer& quantizer, Exec& exec,
                           const ProgressCallback& progress = {});

}  // namespace nibble
