#include "run/model.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "models/decoder.h"

namespace nibble {
namespace {

/// Most logits that are held at once by for_each_logits: 2^25 values, 128 MB.
constexpr std::int64_t kLogitsAtOnce = std::int64_t{1} << 25;

ModelInfo describe(const models::Decoder& decoder) {
  const models::ModelConfig& c = decoder.config;
  ModelInfo info;
  info.architecture = c.architecture;
  info.vocab_size = c.vocab_size;
  info.hidden_size = c.hidden_size;
  info.num_layers = c.num_layers;
  info.context_length = c.context_length;
  std::set<const std::byte*> seen;  // tied weights count once
  const auto count_floats = [&](const std::vector<float>& values) {
    info.parameters += static_cast<std::int64_t>(values.size());
    info.weight_bytes += static_cast<std::int64_t>(values.size() * sizeof(float));
  };
  const auto count_matrix = [&](const QTensor& w) {
    if (w.empty() || !seen.insert(w.part[0].data()).second) return;
    info.parameters += w.rows * w.cols;
    info.weight_bytes += w.size_bytes();
  };
  count_matrix(decoder.tokens.table);
  count_matrix(decoder.positions.table);
  decoder.each_linear([&](const nn::Linear& linear) {
    count_matrix(linear.weight);
    count_floats(linear.bias);
  });
  const auto count_norm = [&](const nn::Norm& norm) {
    count_floats(norm.weight);
    count_floats(norm.bias);
  };
  for (const nn::Block& block : decoder.blocks) {
    count_norm(block.attention_norm);
    count_norm(block.mlp_norm);
    count_norm(block.attention.q_norm);
    count_norm(block.attention.k_norm);
  }
  count_norm(decoder.final_norm);
  return info;
}

nn::KvShape kv_shape(const models::ModelConfig& config, const ModelOptions& options) {
  nn::KvShape shape;
  shape.layers = config.num_layers;
  shape.kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.dtype = options.kv_dtype;
  return shape;
}

class DecoderModel final : public Model {
 public:
  DecoderModel(std::shared_ptr<const Checkpoint> checkpoint, const ModelOptions& options, Exec& exec)
      : weights_(std::move(checkpoint)),
        decoder_(models::build_decoder(weights_, exec)),
        cache_(kv_shape(decoder_.config, options)),
        info_(describe(decoder_)),
        chunk_(std::max<std::int64_t>(options.prefill_chunk, 1)) {
    info_.kv_page_rows = cache_.shape().page_rows;
    info_.kv_page_bytes = cache_.page_bytes();
    if (options.max_context <= 0) return;
    // Rotary positions go on beyond what the model was trained for, when the user asks for it; learned ones end.
    const bool open_ended = decoder_.rope.has_value();
    info_.context_length = open_ended ? options.max_context : std::min(info_.context_length, options.max_context);
  }

  const ModelInfo& info() const override { return info_; }
  std::int64_t open_sequence() override { return cache_.open(); }
  void close_sequence(std::int64_t sequence) override { cache_.close(sequence); }
  std::int64_t sequence_length(std::int64_t sequence) const override { return cache_.length(sequence); }
  std::int64_t fork_sequence(std::int64_t sequence, std::int64_t rows) override { return cache_.fork(sequence, rows); }
  void truncate_sequence(std::int64_t sequence, std::int64_t rows) override { cache_.truncate(sequence, rows); }

  void forward(std::span<const BatchItem> items, std::vector<float>& logits, Exec& exec) override {
    validate(items);
    for (const BatchItem& item : items) {
      if (!cache_.reserve(item.sequence, static_cast<std::int64_t>(item.ids.size()))) {
        throw runtime_failure("the KV cache is full: ", cache_.pages_in_use(), " pages are in use");
      }
    }
    std::int64_t rows = 0;
    for (const BatchItem& item : items) rows += item.all_logits ? static_cast<std::int64_t>(item.ids.size()) : 1;
    logits.resize(static_cast<std::size_t>(rows * info_.vocab_size));
    float* to = logits.data();

    // Passes of at most chunk_ rows, filled item by item.
    std::vector<models::PassItem> pass;
    std::int64_t room = chunk_, wanted = 0;
    const auto flush = [&] {
      if (!pass.empty()) decoder_.forward(pass, cache_, to, exec);
      to += wanted * info_.vocab_size;
      pass.clear();
      room = chunk_;
      wanted = 0;
    };
    for (const BatchItem& item : items) {
      const auto count = static_cast<std::int64_t>(item.ids.size());
      const std::int64_t length = std::max(item.final_length, cache_.length(item.sequence) + count);
      for (std::int64_t done = 0; done < count;) {
        if (room == 0) flush();
        const std::int64_t take = std::min(room, count - done);
        models::PassItem& part = pass.emplace_back();
        part.sequence = item.sequence;
        part.ids = item.ids.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(take));
        part.length = length;
        part.logits = item.all_logits ? take : (done + take == count ? 1 : 0);
        wanted += part.logits;
        done += take;
        room -= take;
      }
    }
    flush();
  }

 private:
  void validate(std::span<const BatchItem> items) const {
    std::set<std::int64_t> seen;
    for (const BatchItem& item : items) {
      check(cache_.is_open(item.sequence), "Model::forward: no such sequence");
      check(seen.insert(item.sequence).second, "Model::forward: a sequence appears twice");
      if (item.ids.empty()) throw bad_input("there are no tokens to compute");
      for (const std::int32_t id : item.ids) {
        if (id < 0 || id >= info_.vocab_size) {
          throw bad_input("token id ", id, " is outside the model's vocabulary of ", info_.vocab_size);
        }
      }
      const std::int64_t length = cache_.length(item.sequence) + static_cast<std::int64_t>(item.ids.size());
      if (info_.context_length > 0 && length > info_.context_length) {
        throw bad_input("the sequence would have ", length, " tokens, but the context holds ", info_.context_length);
      }
    }
  }

  WeightStore weights_;
  models::Decoder decoder_;
  nn::KvCache cache_;
  ModelInfo info_;
  std::int64_t chunk_;
};

}  // namespace

std::int64_t Model::fork_sequence(std::int64_t, std::int64_t) {
  throw runtime_failure("this model cannot fork a sequence");
}

void Model::truncate_sequence(std::int64_t, std::int64_t) {
  throw runtime_failure("this model cannot shorten a sequence");
}

std::unique_ptr<Model> Model::load(std::shared_ptr<const Checkpoint> checkpoint, const ModelOptions& options,
                                   Exec& exec) {
  const DType kv = options.kv_dtype;
  if (kv != DType::f32 && kv != DType::f16 && kv != DType::bf16) {
    throw bad_input("the KV cache can be f32, f16 or bf16, not ", name_of(kv));
  }
  return std::make_unique<DecoderModel>(std::move(checkpoint), options, exec);
}

void for_each_logits(Model& model, std::span<const std::int32_t> ids, Exec& exec,
                     const std::function<void(std::int64_t first, std::int64_t rows, const float* logits)>& visit) {
  const auto total = static_cast<std::int64_t>(ids.size());
  const std::int64_t step = std::max<std::int64_t>(1, kLogitsAtOnce / model.info().vocab_size);
  struct Opened {
    Model& model;
    std::int64_t sequence = model.open_sequence();
    ~Opened() { model.close_sequence(sequence); }
  } opened{model};
  std::vector<float> logits;
  for (std::int64_t first = 0; first < total; first += step) {
    const std::int64_t rows = std::min(step, total - first);
    BatchItem item;
    item.sequence = opened.sequence;
    item.ids = ids.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    item.all_logits = true;
    item.final_length = total;
    model.forward({&item, 1}, logits, exec);
    visit(first, rows, logits.data());
  }
}

}  // namespace nibble
