#include "run/encoder_decoder_model.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "models/encoder_decoder.h"
#include "run/cached_model.h"
#include "run/weight_count.h"

namespace nibble {
namespace {

ModelInfo describe(const models::EncoderDecoder& model, const ModelOptions& options) {
  const models::EncoderDecoderConfig& c = model.config;
  ModelInfo info;
  info.architecture = c.architecture;
  info.encoder_decoder = true;
  info.vocab_size = c.vocab_size;
  info.hidden_size = c.hidden_size;
  info.num_layers = c.encoder_layers + c.decoder_layers;
  info.context_length = std::max<std::int64_t>(options.max_context, 0);  // relative positions have no end
  WeightCount count;
  count.matrix(model.tokens.table);
  model.each_linear([&](const nn::Linear& linear) { count.linear(linear); });
  for (const nn::Block& block : model.encoder) {
    count.norm(block.attention_norm);
    count.norm(block.mlp_norm);
  }
  for (const nn::CrossBlock& block : model.decoder) {
    count.norm(block.attention_norm);
    count.norm(block.cross_norm);
    count.norm(block.mlp_norm);
  }
  count.norm(model.encoder_norm);
  count.norm(model.decoder_norm);
  count.floats(model.encoder_bias.weight);
  count.floats(model.decoder_bias.weight);
  info.parameters = count.parameters;
  info.weight_bytes = count.bytes;
  return info;
}

nn::KvShape kv_shape(const models::EncoderDecoderConfig& config, const ModelOptions& options) {
  return {.layers = config.decoder_layers,
          .kv_heads = config.num_heads,
          .head_dim = config.head_dim,
          .dtype = options.kv_dtype};
}

class EncoderDecoderModel final : public CachedModel {
 public:
  EncoderDecoderModel(const std::shared_ptr<const Checkpoint>& checkpoint, models::EncoderDecoder model,
                      const ModelOptions& options)
      : CachedModel(kv_shape(model.config, options), describe(model, options), options),
        checkpoint_(checkpoint),
        model_(std::move(model)),
        encoded_(cache_.shape()) {}

  // A sequence has the same number in both caches.
  std::int64_t open_sequence() override { return same(cache_.open(), encoded_.open()); }
  void close_sequence(std::int64_t sequence) override {
    cache_.close(sequence);
    encoded_.close(sequence);
  }
  std::int64_t fork_sequence(std::int64_t sequence, std::int64_t rows) override {
    return same(cache_.fork(sequence, rows), encoded_.fork(sequence, encoded_.length(sequence)));
  }

  void encode(std::int64_t sequence, std::span<const std::int32_t> ids, Exec& exec) override {
    check(encoded_.is_open(sequence), "Model::encode: no such sequence");
    check(encoded_.length(sequence) == 0, "Model::encode: the sequence has its input");
    if (ids.empty()) throw bad_input("there are no tokens to encode");
    check_ids(ids);
    const auto rows = static_cast<std::int64_t>(ids.size());
    if (info_.context_length > 0 && rows > info_.context_length) {
      throw bad_input("the input has ", rows, " tokens, but the context holds ", info_.context_length);
    }
    encoded_.reserve(sequence, rows);
    model_.encode(ids, sequence, encoded_, exec);
  }

  /// Its linears: the embedding is one table for both sides and the head.
  std::vector<ModuleView> modules() override {
    std::vector<ModuleView> out;
    model_.each_linear([&](nn::Linear& linear) { out.push_back({&linear, nullptr}); });
    return out;
  }

 protected:
  void validate(std::span<const BatchItem> items) const override {
    CachedModel::validate(items);
    for (const BatchItem& item : items) {
      if (encoded_.length(item.sequence) > 0) continue;
      throw bad_input(info_.architecture, " is an encoder-decoder: it answers an input and cannot continue ids alone; ",
                      "only nibble run and nibble logits do that");
    }
  }
  void compute(std::span<const models::PassItem> items, float* logits, Exec& exec) override {
    model_.forward(items, cache_, encoded_, logits, exec);
  }

 private:
  static std::int64_t same(std::int64_t a, std::int64_t b) {
    check(a == b, "EncoderDecoderModel: the caches count sequences differently");
    return a;
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  models::EncoderDecoder model_;
  nn::KvCache encoded_;
};

}  // namespace

std::unique_ptr<Model> load_encoder_decoder(const std::shared_ptr<const Checkpoint>& checkpoint,
                                            const ModelOptions& options, Exec& exec) {
  const WeightStore weights(checkpoint);
  return std::make_unique<EncoderDecoderModel>(checkpoint, models::build_encoder_decoder(weights, exec), options);
}

}  // namespace nibble
