// modules_to_fuse: nothing here is fused at load (kernels already share one input), but a mapping that does not fit the
// model is an error in the library, and so here.
#include <algorithm>

#include "base/error.h"
#include "quant/awq/config.h"

namespace nibble::awq {
namespace {

/// Whether a tensor lies in a module of this name: "q_proj" in "model.layers.0.self_attn.q_proj.qweight".
bool has_module(const Checkpoint& checkpoint, const std::string& name) {
  const std::string inner = "." + name + ".";
  const auto tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [&](const TensorEntry& tensor) {
    return tensor.name.find(inner) != std::string::npos || tensor.name.rfind(name + ".", 0) == 0;
  });
}

void check_names(const Json& map, const std::string& where, const Checkpoint& checkpoint) {
  for (const char* key : {"attention", "mlp", "layernorm"}) {
    const Json* list = map.get(key);
    if (list == nullptr) continue;
    const std::string place = cat(where, ": ", key);
    for (const Json& entry : list->array(place)) {
      const std::string& name = entry.string(place);
      if (name.empty() || !has_module(checkpoint, name)) {
        throw bad_input(place, ": the model has no module \"", printable(name), "\"");
      }
    }
  }
}

void check_number(const Json& map, const char* key, const std::string& where, const Checkpoint& checkpoint) {
  const Json* value = map.get(key);
  if (value == nullptr) return;
  const std::int64_t stated = value->integer(cat(where, ": ", key));
  const Json* real = checkpoint.config().get(key);
  if (real == nullptr || !real->is_integer()) return;
  if (real->integer(key) != stated) {
    throw bad_input(where, ": ", key, " is ", stated, ", but the model's is ", real->integer(key));
  }
}

}  // namespace

void check_fusing(const QuantConfig& files, const Checkpoint& checkpoint) {
  const bool fuse = files.boolean({"do_fuse"}).value_or(false);
  const Keys length{"fuse_max_seq_len"};
  if (const auto tokens = files.integer(length); tokens && *tokens < 1) {
    throw bad_input(files.find(length)->where, ": ", *tokens, " (a positive number of tokens)");
  } else if (fuse && !tokens) {
    throw bad_input(files.find({"do_fuse"})->where, ": fusing needs fuse_max_seq_len");
  }
  const auto map = files.find({"modules_to_fuse"});
  if (!map) return;
  map->value->object(map->where);
  check_names(*map->value, map->where, checkpoint);
  if (const Json* alibi = map->value->get("use_alibi")) alibi->boolean(map->where + ": use_alibi");
  for (const char* key : {"hidden_size", "num_attention_heads", "num_key_value_heads"}) {
    check_number(*map->value, key, map->where, checkpoint);
  }
}

}  // namespace nibble::awq
