// Choosing the next token from logits, with the steps and their order as in Transformers: repetition penalty, then
// temperature, top-k, top-p, min-p.
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace nibble {

struct SamplingOptions {
  bool do_sample = false;  ///< false: greedy, the token of the largest logit (the lowest id of equals)
  double temperature = 1;  ///< > 0 (0 means greedy)
  std::int64_t top_k = 0;  ///< keep the k most likely (and those equal to the last of them); 0: all
  double top_p = 1;        ///< keep the most likely until they have this much probability together; 1: all
  double min_p = 0;        ///< keep those at least this fraction as likely as the most likely; 0: all
  double repetition_penalty =
      1;  ///< arXiv:1909.05858: logits of tokens seen so far are divided by it (multiplied if < 0)
  std::uint64_t seed = 0;
};

/// Throws Error(bad_input) naming the option that is out of range.
void check_sampling(const SamplingOptions& options);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  /// The id that follows `seen` (prompt and answer so far), by logits [vocab]. The same seed and logits give the same
  /// ids. Throws Error(runtime) when no logit is a number.
  std::int32_t next(std::span<const float> logits, std::span<const std::int32_t> seen);

 private:
  struct Candidate {
    float logit;
    std::int32_t id;
  };
  void penalize(std::span<const std::int32_t> seen);
  void keep_top_k();
  void keep_likely();
  std::int32_t draw();

  SamplingOptions options_;
  Rng rng_;
  std::vector<float> scores_;
  std::vector<Candidate> candidates_;  ///< most likely first once keep_likely has run
};

}  // namespace nibble
