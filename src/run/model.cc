#include "run/model.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "base/error.h"
#include "models/decoder.h"
#include "models/model_class.h"
#include "nn/adapters.h"
#include "run/cached_model.h"
#include "run/encoder_decoder_model.h"
#include "run/weight_count.h"

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
  WeightCount count;
  count.matrix(decoder.tokens.table);
  count.matrix(decoder.positions.table);
  decoder.each_linear([&](const nn::Linear& linear) { count.linear(linear); });
  for (const nn::Block& block : decoder.blocks) {
    count.norm(block.attention_norm);
    count.norm(block.mlp_norm);
    count.norm(block.attention.q_norm);
    count.norm(block.attention.k_norm);
  }
  count.norm(decoder.embedding_norm);
  count.norm(decoder.final_norm);
  info.parameters = count.parameters;
  info.weight_bytes = count.bytes;
  return info;
}

nn::KvShape kv_shape(const models::ModelConfig& config, const ModelOptions& options) {
  return {.layers = config.num_layers,
          .kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .dtype = options.kv_dtype};
}

/// A context that the user asks for instead of the model's own.
ModelInfo with_context(ModelInfo info, const ModelOptions& options, bool open_ended) {
  if (options.max_context <= 0) return info;
  // Positions go on beyond what the model was trained for, when the user asks for it; learned ones end.
  info.context_length = open_ended ? options.max_context : std::min(info.context_length, options.max_context);
  return info;
}

class DecoderModel final : public CachedModel {
 public:
  DecoderModel(const std::shared_ptr<const Checkpoint>& checkpoint, models::Decoder decoder,
               const ModelOptions& options)
      : CachedModel(kv_shape(decoder.config, options),
                    with_context(describe(decoder), options, decoder.positions.table.empty()), options),
        checkpoint_(checkpoint),
        decoder_(std::move(decoder)) {}

  std::vector<ModuleView> modules() override {
    std::vector<ModuleView> out;
    for (nn::Embedding* table : {&decoder_.tokens, &decoder_.positions}) {
      if (!table->table.empty()) out.push_back({nullptr, table});
    }
    decoder_.each_linear([&](nn::Linear& linear) { out.push_back({&linear, nullptr}); });
    return out;
  }

 protected:
  void compute(std::span<const models::PassItem> items, float* logits, Exec& exec) override {
    decoder_.forward(items, cache_, logits, exec);
  }

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
  models::Decoder decoder_;
};

}  // namespace

void Model::set_adapters(std::shared_ptr<const nn::Adapters> adapters) {
  static const nn::Adapters kNone;
  const nn::Adapters& all = adapters == nullptr ? kNone : *adapters;
  const std::vector<ModuleView> views = modules();
  std::set<std::string> linears, embeddings;
  for (const ModuleView& view : views) {
    if (view.linear != nullptr) linears.insert(view.linear->name);
    if (view.embedding != nullptr) embeddings.insert(view.embedding->name);
  }
  for (const auto& [name, adapter] : all.linears) {
    if (!linears.contains(name)) throw bad_input("the model has no linear ", printable(name), " to adapt");
  }
  for (const auto& [name, adapter] : all.embeddings) {
    if (!embeddings.contains(name)) throw bad_input("the model has no embedding ", printable(name), " to adapt");
  }
  for (const ModuleView& view : views) {
    if (view.linear != nullptr) view.linear->adapter = all.linear(view.linear->name);
    if (view.embedding != nullptr) view.embedding->adapter = all.embedding(view.embedding->name);
  }
  adapters_ = std::move(adapters);
}

std::int64_t Model::fork_sequence(std::int64_t, std::int64_t) {
  throw runtime_failure("this model cannot fork a sequence");
}

void Model::truncate_sequence(std::int64_t, std::int64_t) {
  throw runtime_failure("this model cannot shorten a sequence");
}

void Model::encode(std::int64_t, std::span<const std::int32_t>, Exec&) {
  throw runtime_failure("this model has no encoder");
}

std::unique_ptr<Model> Model::load(std::shared_ptr<const Checkpoint> checkpoint, const ModelOptions& options,
                                   Exec& exec) {
  const DType kv = options.kv_dtype;
  if (kv != DType::f32 && kv != DType::f16 && kv != DType::bf16) {
    throw bad_input("the KV cache can be f32, f16 or bf16, not ", name_of(kv));
  }
  const std::string file = (checkpoint->folder() / "config.json").string();
  const models::ModelClass& found = models::model_class_of(checkpoint->config(), file);
  if (found.shape == models::ModelShape::encoder_decoder) return load_encoder_decoder(checkpoint, options, exec);
  if (found.shape != models::ModelShape::decoder) {
    throw bad_input(file, ": ", found.hf_class,
                    " is an encoder: it gives hidden states, not next tokens; only nibble logits runs it");
  }
  const WeightStore weights(checkpoint);
  return std::make_unique<DecoderModel>(checkpoint, models::build_decoder(weights, exec), options);
}

void for_each_logits(Model& model, std::span<const std::int32_t> ids, Exec& exec, const LogitsVisitor& visit) {
  for_each_logits(model, {}, ids, exec, visit);
}

void for_each_logits(Model& model, std::span<const std::int32_t> encoder_ids, std::span<const std::int32_t> ids,
                     Exec& exec, const LogitsVisitor& visit) {
  const auto total = static_cast<std::int64_t>(ids.size());
  const std::int64_t step = std::max<std::int64_t>(1, kLogitsAtOnce / model.info().vocab_size);
  struct Opened {
    Model& model;
    std::int64_t sequence = model.open_sequence();
    ~Opened() { model.close_sequence(sequence); }
  } opened{model};
  if (!encoder_ids.empty()) model.encode(opened.sequence, encoder_ids, exec);
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
