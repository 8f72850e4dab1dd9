// How long a calibration will take, from a small part of it that is run and timed.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "calib/awq_calibration.h"
#include "quant/solved_quantizer.h"

namespace nibble {

struct JobEstimate {
  double observing = 0;  ///< seconds in which the model runs
  double solving = 0;    ///< seconds in which codes are chosen
  double seconds() const { return observing + solving; }
};

/// The job of calibrating `modules` of `source` with `tokens` tokens in sequences of `seqlen`. Runs the first block
/// over one short sequence, with its part of `remember_bytes` (BlockTask's), and solve() on a part of each of its
/// weights, scaled up by SolvedQuantizer::solve_work: seconds for a model of billions of weights. A third more or less
/// is to be expected.
JobEstimate estimate_job(std::shared_ptr<const Checkpoint> source, const std::vector<std::string>& modules,
                         std::int64_t tokens, std::int64_t seqlen, std::int64_t remember_bytes,
                         SolvedQuantizer& quantizer, Exec& exec);

/// The same for AWQ: source, modules and loss of `task`, whose data is not looked at. With AwqLoss::output the search
/// runs as a whole over the short sequence: a minute or two for billions of weights.
JobEstimate estimate_job(const AwqTask& task, const awq::QuantizerConfig& config, std::int64_t tokens,
                         std::int64_t seqlen, Exec& exec);

}  // namespace nibble
