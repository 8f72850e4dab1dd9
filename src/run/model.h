// A runnable model: token ids in, logits out, with a paged KV cache.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "device/device.h"
#include "quant/scheme.h"

namespace nibble {

namespace nn {
struct Adapters;
struct Embedding;
struct Linear;
}  // namespace nn

struct ModelOptions {
  DType kv_dtype = DType::f32;       ///< f32, f16 or bf16 elements in the KV cache
  std::int64_t prefill_chunk = 512;  ///< most positions computed at once
  std::int64_t max_context = 0;      ///< context length; 0: the model's own. Learned positions cannot be exceeded
};

/// What people ask of a model besides its logits.
struct ModelInfo {
  std::string architecture;      ///< "LlamaForCausalLM"
  bool encoder_decoder = false;  ///< a sequence begins with Model::encode
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t context_length = 0;  ///< 0: no limit known
  std::int64_t parameters = 0;      ///< elements of all weights
  std::int64_t weight_bytes = 0;    ///< bytes of all weights as they lie in memory, shared ones once
  std::int64_t kv_page_rows = 0;    ///< the KV cache grows by this many positions ...
  std::int64_t kv_page_bytes = 0;   ///< ... and this many bytes
};

/// One sequence's new tokens in a batch.
struct BatchItem {
  std::int64_t sequence = 0;          ///< from Model::open_sequence
  std::span<const std::int32_t> ids;  ///< new tokens, appended to the sequence
  bool all_logits = false;            ///< logits of every new position, or only of the last
  std::int64_t final_length = 0;      ///< the length that the sequence is going to have, when it is computed in several
                                      ///< calls: with dynamic RoPE all of them then rotate alike; 0: this call's end
};

/// A linear or an embedding of a model: one of the two pointers is set, valid as long as the model.
struct ModuleView {
  nn::Linear* linear = nullptr;
  nn::Embedding* embedding = nullptr;
};

class Model {
 public:
  /// Builds the model of a checkpoint from its config. Throws Error(bad_input) naming file, field or tensor.
  static std::unique_ptr<Model> load(std::shared_ptr<const Checkpoint> checkpoint, const ModelOptions& options,
                                     Exec& exec);
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;

  /// Starts an empty sequence / forgets it and gives back its pages.
  virtual std::int64_t open_sequence() = 0;
  virtual void close_sequence(std::int64_t sequence) = 0;
  virtual std::int64_t sequence_length(std::int64_t sequence) const = 0;
  /// A new sequence that begins with the first `rows` positions of `sequence`, sharing their pages.
  virtual std::int64_t fork_sequence(std::int64_t sequence, std::int64_t rows);
  /// Forgets all positions from `rows` on. Both throw Error(runtime) where a model cannot do it.
  virtual void truncate_sequence(std::int64_t sequence, std::int64_t rows);

  /// Encoder-decoders: runs the encoder on `ids`, all that `sequence` answers to; once, before its first forward.
  /// Error(bad_input) when an id is outside the vocabulary; other models throw Error(runtime).
  virtual void encode(std::int64_t sequence, std::span<const std::int32_t> ids, Exec& exec);

  /// Appends the items' tokens and computes. `logits` gets f32 rows [vocab_size], item by item in order, position by
  /// position (one row per item unless all_logits). Error(bad_input) when an id is outside the vocabulary or a sequence
  /// would pass the context length (both numbers are named).
  virtual void forward(std::span<const BatchItem> items, std::vector<float>& logits, Exec& exec) = 0;

  /// Every linear and embedding that adapters may change; none where a model cannot take adapters.
  virtual std::vector<ModuleView> modules() { return {}; }
  /// From now on forward() adds these (null: none). Sequences begun before keep the keys and values they have. Throws
  /// Error(bad_input) when one is for a module that the model does not have.
  void set_adapters(std::shared_ptr<const nn::Adapters> adapters);
  const nn::Adapters* adapters() const { return adapters_.get(); }

 private:
  std::shared_ptr<const nn::Adapters> adapters_;
};

/// Called with logits [rows, vocab_size] of the positions from `first` on.
using LogitsVisitor = std::function<void(std::int64_t first, std::int64_t rows, const float* logits)>;

/// Logits of every position of `ids` in a fresh sequence, chunk by chunk, so that memory stays bounded. `encoder_ids`:
/// what an encoder-decoder reads first; empty for decoders.
void for_each_logits(Model& model, std::span<const std::int32_t> encoder_ids, std::span<const std::int32_t> ids,
                     Exec& exec, const LogitsVisitor& visit);
void for_each_logits(Model& model, std::span<const std::int32_t> ids, Exec& exec, const LogitsVisitor& visit);

}  // namespace nibble
