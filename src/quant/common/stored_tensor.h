// What a scheme's store() gives: the tensors of one module as they lie on disk.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tensor/view.h"

namespace nibble::quant {

struct StoredTensor {
  std::string name;                   ///< full name: "model.layers.0.mlp.up_proj.weight"
  View view;                          ///< dtype, shape and bytes
  std::shared_ptr<const void> owner;  ///< keeps the bytes alive
};

using StoredTensors = std::vector<StoredTensor>;

}  // namespace nibble::quant
