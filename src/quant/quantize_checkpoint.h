// Quantizes a checkpoint of any model, tensor by tensor from the file mapping into a new checkpoint.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "quant/quantizer.h"
#include "quant/select_modules.h"

namespace nibble {

/// One tensor of the source and what becomes of it.
struct PlannedTensor {
  const TensorEntry* source = nullptr;
  std::string module;  ///< quantized as this module; empty: copied
  std::string scheme;  ///< "qint4, group_size 128"
  std::vector<TensorPlan> outputs;
  std::int64_t bytes_in = 0;
  std::int64_t bytes_out = 0;
};

struct QuantizationPlan {
  std::vector<PlannedTensor> tensors;
  std::vector<std::string> modules;
  std::vector<std::string> notes;
  std::optional<Json> quantization_config;  ///< for config.json
  bool unties = false;                      ///< the head gets a weight of its own: tie_word_embeddings becomes false
  std::int64_t parameters = 0;              ///< of all tensors of the source
  std::int64_t quantized = 0;               ///< elements of quantized weights
  std::int64_t quantized_bytes = 0;         ///< bytes they take now, scales included
  std::int64_t bytes_in = 0, bytes_out = 0;
  std::int64_t peak_bytes = 0;     ///< most memory that quantizing holds, file pages included
  double bits_per_weight() const;  ///< of the quantized weights
};

/// config.json of the result: the source's with what quantizing changes.
Json quantized_config(const Json& source, const QuantizationPlan& plan);

/// Throws Error(bad_input) when the checkpoint is quantized already or nothing is selected.
QuantizationPlan plan_quantization(const Checkpoint& source, const ModuleQuantizer& quantizer,
                                   const ModuleSelection& selection, int threads);

struct QuantizeOptions {
  std::filesystem::path out;
  std::int64_t max_shard_bytes = std::int64_t{5} * 1000 * 1000 * 1000;
  bool force = false;                                        ///< replace a model that is already in `out`
  Json metadata = Json::Object{{"format", "pt"}};            ///< of every safetensors file; strings only
  std::vector<std::pair<std::string, std::string>> files{};  ///< more side files: name, content
};

/// Writes the planned checkpoint to options.out with config, tokenizer and other side files, opens it again, and checks
/// every tensor: copies bit by bit, quantized weights against their floats. Gives the error over all quantized weights.
/// What fails leaves no model in `out`.
QuantizationError quantize_checkpoint(const Checkpoint& source, const QuantizationPlan& plan,
                                      ModuleQuantizer& quantizer, const QuantizeOptions& options, ThreadPool& pool,
                                      const ProgressCallback& progress = {});

/// Throws Error(bad_input) when `out` is the source's own folder, or holds something already and `force` is not set.
void check_output_folder(const std::filesystem::path& source, const std::filesystem::path& out, bool force);

}  // namespace nibble
