// Looking rows of a table up: token and learned position embeddings.
#pragma once
#include <cstdint>
#include <string>

#include "layout/layout.h"
#include "nn/adapters.h"

namespace nibble::nn {

struct Embedding {
  QTensor table;                              ///< [rows, width]
  std::string name;                           ///< the module's name in the checkpoint: what adapters know it by
  const EmbeddingAdapter* adapter = nullptr;  ///< null: none

  /// Row `id` (in range) as f32 [width].
  void row(std::int64_t id, float* out, Exec& exec) const { rows(id, 1, out, exec); }
  /// Rows [first, first + count) as f32 [count, width].
  void rows(std::int64_t first, std::int64_t count, float* out, Exec& exec) const {
    decode(table, first, count, out, exec);
    if (adapter == nullptr) return;
    for (std::int64_t i = 0; i < count; ++i) adapter->add(first + i, out + i * table.cols);
  }
};

}  // namespace nibble::nn
