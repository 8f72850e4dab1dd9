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
  // Without grouped heads, config.json may leave their number out.
  if (real == nullptr && std::string_view(key) == "num_key_value_heads") {
    real = checkpoint.config().get("num_attention_heads");
  }
  if (real == nullptr || !real->is_integer()) return;
  if (real->integer(key) != stated) {
    throw bad_input(where, ": ", key, " is ", stated, ", but the model's is ", real->integer(key));
  }
}

/// BLOOM and MPT have linear biases instead of positions, Falcon when its config says so.
void check_alibi(const Json& map, const std::string& where, const Checkpoint& checkpoint) {
  const Json* stated = map.get("use_alibi");
  if (stated == nullptr || !stated->boolean(where + ": use_alibi")) return;
  const Json& config = checkpoint.config();
  const Json* type = config.get("model_type");
  const Json* flag = config.get("alibi");
  const bool always = type != nullptr && (*type == Json("bloom") || *type == Json("mpt"));
  if (!always && !(flag != nullptr && *flag == Json(true)))
    throw bad_input(where, ": use_alibi is true, but the model has no linear biases");
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
  check_alibi(*map->value, map->where, checkpoint);
  for (const char* key : {"hidden_size", "num_attention_heads", "num_key_value_heads"}) {
    check_number(*map->value, key, map->where, checkpoint);
  }
}

}  // namespace nibble::awq
