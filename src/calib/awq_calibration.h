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

namespace nibble {

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
};

struct AwqTask {
  std::shared_ptr<const Checkpoint> source;
  std::vector<std::string> modules;                  ///< to quantize
  std::vector<std::vector<std::int32_t>> sequences;  ///< calibration data
  std::filesystem::path spill{};                     ///< folder for activations between blocks; empty: in memory
  AwqLoss loss = AwqLoss::gram;
  std::function<void(const AwqReport&)> on_step;  ///< may be empty
};

/// Fills `quantizer` with every module and with what replaces norms, biases and routers. The same tensors for any
/// number of threads. exec.compute is the arithmetic in which the blocks run; statistics are sums in f32 and f64.
/// Throws Error(bad_input) when the data does not fit the model or a weight is not finite.
void awq_quantize(const AwqTask& task, awq::Quantizer& quantizer, Exec& exec, const ProgressCallback& progress = {});

}  // namespace nibble
