// GPTQ over a model: block by block, its linears are quantized with the statistics of the inputs that really reach them
// - through the blocks quantized before.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/progress.h"
#include "calib/block_runner.h"
#include "quant/gptq/quantizer.h"

namespace nibble {

/// Names of the linears in the blocks of a checkpoint's model: what GPTQ can quantize. Throws Error(bad_input) when
/// nibble cannot run the model.
std::set<std::string> block_linears(std::shared_ptr<const Checkpoint> source, Exec& exec);

/// Memory that calibration holds beside the Gram matrices and what it quantizes, at most: activations between two
/// blocks, those inside a block for one sequence, and a block's weights.
std::int64_t calibration_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                               Exec& exec);

/// How one module came out.
struct GptqReport {
  std::string module;
  double loss = 0;        ///< per token
  double damp = 0;        ///< more than asked for where the matrix was not positive definite
  std::int64_t dead = 0;  ///< inputs that were always zero
  bool rounded = false;   ///< no statistics or no damping that helped: rounded to nearest
};

struct GptqCalibration {
  std::shared_ptr<const Checkpoint> source;
  std::vector<std::string> modules;                  ///< to quantize
  std::vector<std::vector<std::int32_t>> sequences;  ///< calibration data
  std::function<void(const GptqReport&)> on_module;  ///< may be empty
};

/// Fills `quantizer` with every module. The same tensors for any number of threads. exec.compute is the arithmetic in
/// which the blocks run; statistics and codes are computed in f32 and f64. Throws Error(bad_input) when the data does
/// not fit the model or a weight is not finite.
void gptq_calibrate(const GptqCalibration& task, gptq::Quantizer& quantizer, Exec& exec,
                    const ProgressCallback& progress = {});

}  // namespace nibble
