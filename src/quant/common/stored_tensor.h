// What a scheme's store() gives: the tensors of one module as they lie on disk.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "quant/scheme.h"
#include "tensor/view.h"

namespace nibble::quant {

struct StoredTensor {
  std::string name;                   ///< full name: "model.layers.0.mlp.up_proj.weight"
  View view;                          ///< dtype, shape and bytes
  std::shared_ptr<const void> owner;  ///< keeps the bytes alive
};

using StoredTensors = std::vector<StoredTensor>;

/// The same with memory of their own: what Scheme::store gives.
inline std::vector<nibble::StoredTensor> copies_of(const StoredTensors& tensors) {
  std::vector<nibble::StoredTensor> out;
  out.reserve(tensors.size());
  for (const StoredTensor& tensor : tensors) out.push_back({tensor.name, Tensor(tensor.view)});
  return out;
}

}  // namespace nibble::quant
