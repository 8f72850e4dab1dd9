// AutoAWQ's measure of a candidate: how far the output of a part of a block moves when some of its weights change.
#pragma once
#include <span>
#include <vector>

#include "calib/awq_steps.h"
#include "calib/block_runner.h"

namespace nibble {

class AwqOutputLoss {
 public:
  /// Runs the part of block `index` that `step` inspects (attention or mlp) with the weights it has now. All arguments
  /// must outlive the object; the runner's next block must be this one. Memory: 4 bytes per token and hidden channel,
  /// twice for the mlp.
  AwqOutputLoss(models::Decoder& decoder, std::int64_t index, const AwqStep& step, BlockRunner& runner, Exec& exec);

  /// Mean squared difference of its output with the weights it has now.
  double changed();

 private:
  void run(const std::function<void(const float* y, std::int64_t count)>& take);

  nn::Block& block_;
  std::int64_t index_;
  const AwqStep& step_;
  BlockRunner& runner_;
  Exec& exec_;
  std::vector<float> inputs_;     ///< of the mlp, [tokens, hidden]
  std::vector<float> reference_;  ///< outputs, [tokens, hidden]
};

}  // namespace nibble
