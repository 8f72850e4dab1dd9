// What models that continue sequences share: a KV cache, checks of what is asked, and passes of bounded size.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "models/decoder.h"
#include "run/model.h"

namespace nibble {

class CachedModel : public Model {
 public:
  const ModelInfo& info() const override { return info_; }
  std::int64_t open_sequence() override { return cache_.open(); }
  void close_sequence(std::int64_t sequence) override { cache_.close(sequence); }
  std::int64_t sequence_length(std::int64_t sequence) const override { return cache_.length(sequence); }
  std::int64_t fork_sequence(std::int64_t sequence, std::int64_t rows) override { return cache_.fork(sequence, rows); }
  void truncate_sequence(std::int64_t sequence, std::int64_t rows) override { cache_.truncate(sequence, rows); }
  void forward(std::span<const BatchItem> items, std::vector<float>& logits, Exec& exec) override;

 protected:
  CachedModel(const nn::KvShape& shape, ModelInfo info, const ModelOptions& options);

  /// Runs the items through the model, extends cache_ and writes logits [sum of items' logits, vocab_size].
  virtual void compute(std::span<const models::PassItem> items, float* logits, Exec& exec) = 0;
  /// Throws what forward promises.
  virtual void validate(std::span<const BatchItem> items) const;
  void check_ids(std::span<const std::int32_t> ids) const;

  nn::KvCache cache_;
  ModelInfo info_;

 private:
  std::int64_t chunk_;
};

}  // namespace nibble
