// A decoder-only language model, built from a checkpoint by its ArchSpec: embeddings, blocks, head.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "models/arch.h"
#include "models/model_config.h"
#include "nn/block.h"
#include "nn/embedding.h"
#include "nn/pass.h"
#include "nn/rope.h"
#include "quant/scheme.h"

namespace nibble::models {

/// New positions of one sequence in a pass.
struct PassItem {
  std::int64_t sequence = 0;          ///< in the cache, where room is reserved
  std::span<const std::int32_t> ids;  ///< inside the vocabulary
  std::int64_t length = 0;            ///< of the sequence when all its new positions are computed (see Rope::table)
  std::int64_t logits = 1;            ///< how many of the last positions get logits
};

/// Moves the rows of x [rows of seqs, width] that get logits to its front; their number.
std::int64_t keep_logit_rows(std::span<const PassItem> items, std::span<const nn::PassSeq> seqs, std::int64_t width,
                             float* x);

struct Decoder {
  ModelConfig config;
  nn::Embedding tokens;
  nn::Embedding positions;  ///< empty unless positions are learned
  std::int64_t position_offset = 0;
  std::optional<nn::Rope> rope;
  nn::Norm embedding_norm;             ///< of the token embeddings; size 0: none
  nn::Linear project_in, project_out;  ///< empty weight: none
  std::vector<nn::Block> blocks;
  nn::Norm final_norm;  ///< size 0: none
  nn::Linear head;
  bool head_is_tied = false;  ///< head.weight is the token table

  /// Every linear, in the order in which they run.
  void each_linear(const std::function<void(const nn::Linear&)>& visit) const;
  void each_linear(const std::function<void(nn::Linear&)>& visit);

  /// Runs the items through all blocks, extends the cache and writes logits [sum of items' logits, vocab_size].
  void forward(std::span<const PassItem> items, nn::KvCache& cache, float* logits, Exec& exec) const;
};

/// Throws Error(bad_input) naming file and tensor when one is missing or has another shape than the config says.
Decoder build_decoder(const WeightStore& weights, Exec& exec);

}  // namespace nibble::models
