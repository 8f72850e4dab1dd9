// Looking rows of a table up: token and learned position embeddings.
#pragma once
#include <cstdint>

#include "layout/layout.h"

namespace nibble::nn {

struct Embedding {
  QTensor table;  ///< [rows, width]

  /// Row `id` (in range) as f32 [width].
  void row(std::int64_t id, float* out, Exec& exec) const { decode(table, id, 1, out, exec); }
};

}  // namespace nibble::nn
