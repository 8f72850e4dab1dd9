#include "api/footprint.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "api/other_dtype.h"
#include "models/arch.h"
#include "quant/common/module_tensors.h"
#include "quant/scheme.h"

namespace nibble {
namespace {

bool is_plain_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// The dtype that Transformers loads a checkpoint in when nobody names one.
DType usual_dtype(const Checkpoint& checkpoint) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const Json* named = checkpoint.config().get(key);
    if (named == nullptr || !named->is_string()) continue;
    if (const auto dtype = dtype_from_name(named->string(key))) return *dtype;
  }
  for (const TensorEntry& entry : checkpoint.tensors()) {
    if (is_plain_float(entry.view.dtype())) return entry.view.dtype();
  }
  return DType::f32;
}

/// Old files hold buffers that the model makes by itself.
bool is_left_over(std::string_view name) {
  return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias") ||
         ends_with(name, "rotary_emb.inv_freq");
}

/// inv_freq and original_inv_freq, f32 [rotary_dim / 2] each.
std::int64_t rotary_bytes(const Checkpoint& checkpoint) {
  const models::ArchSpec* arch = models::find_arch(models::architecture_of(checkpoint.config()));
  if (arch == nullptr || arch->positions != models::Positions::rotary) return 0;
  const models::ModelConfig config = models::parse_model_config(checkpoint.config(), "config.json");
  return nn::Rope(config.rope, config.head_dim).rotary_dim() * 4;
}

bool is_tied_head(const TensorEntry& entry, const Checkpoint& checkpoint) {
  const models::ArchSpec* arch = models::find_arch(models::architecture_of(checkpoint.config()));
  const models::Name* head = arch == nullptr ? nullptr : arch->find(models::Slot::head);
  if (head == nullptr || !ends_with(entry.name, std::string(head->module) + ".weight")) return false;
  return models::parse_model_config(checkpoint.config(), "config.json").tie_embeddings;
}

/// Bytes of a quantized module that are parameters or buffers.
std::int64_t module_bytes(const WeightStore& store, const std::string& module, DType dtype) {
  const std::string_view scheme = store.scheme()->name;
  const Checkpoint& checkpoint = store.checkpoint();
  std::int64_t bytes = 0;
  if (scheme == "quanto") {
    const LinearSize size = store.reader()->size(module);
    constexpr std::int64_t kActivationScales = 2 * 4;  // input_scale and output_scale, f32
    bytes = size.rows * size.cols * static_cast<std::int64_t>(size_of(dtype)) + kActivationScales;
  }
  for (const TensorEntry& entry : quant::tensors_below(checkpoint, module + ".")) {
    const std::string_view part = std::string_view(entry.name).substr(module.size() + 1);
    const bool bnb = scheme == "bnb4" || scheme == "bnb8";
    if (bnb && part != "weight" && part != "bias") continue;
    if (scheme == "quanto" && part != "bias") continue;
    const bool whole = part == "bias" && (bnb || scheme == "quanto");
    bytes += whole ? entry.view.count() * static_cast<std::int64_t>(size_of(dtype))
                   : static_cast<std::int64_t>(entry.view.size_bytes());
  }
  return bytes;
}

}  // namespace

std::int64_t transformers_footprint(std::shared_ptr<const Checkpoint> checkpoint, std::optional<DType> dtype) {
  const DType type = dtype.value_or(usual_dtype(*checkpoint));
  const std::vector<std::string> quantized = quantized_modules(checkpoint);
  std::int64_t bytes = rotary_bytes(*checkpoint);
  for (const TensorEntry& entry : checkpoint->tensors()) {
    if (belongs_to(entry.name, quantized) || is_left_over(entry.name) || is_tied_head(entry, *checkpoint)) continue;
    const bool plain = is_plain_float(entry.view.dtype());
    bytes += plain ? entry.view.count() * static_cast<std::int64_t>(size_of(type))
                   : static_cast<std::int64_t>(entry.view.size_bytes());
  }
  if (quantized.empty()) return bytes;
  const WeightStore store(checkpoint);
  for (const std::string& module : quantized) bytes += module_bytes(store, module, type);
  return bytes;
}

}  // namespace nibble
