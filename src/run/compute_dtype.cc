#include "run/compute_dtype.h"

#include <algorithm>

namespace nibble {

DType default_compute_dtype(const Checkpoint& checkpoint) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const Json* field = checkpoint.config().get(key);
    if (field == nullptr || !field->is_string()) continue;
    return dtype_from_name(field->string(key)) == DType::bf16 ? DType::bf16 : DType::f32;
  }
  const auto is_bf16 = [](const TensorEntry& entry) { return entry.view.dtype() == DType::bf16; };
  const auto tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(), is_bf16) ? DType::bf16 : DType::f32;
}

}  // namespace nibble
