// Rotary position embedding (arXiv:2104.09864) in the half-split pairing that Transformers uses.
#include "device/ref/ref.h"

namespace nibble::ref {

void rope(float* x, const RopeTable& table, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, Exec& exec) {
  const std::int64_t half = table.rotary_dim / 2;
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin * heads; i < end * heads; ++i) {
      float* head = x + i * head_dim;
      const float* cos = table.cos + i / heads * half;
      const float* sin = table.sin + i / heads * half;
      for (std::int64_t d = 0; d < half; ++d) {
        const double a = head[d], b = head[d + half];
        head[d] = static_cast<float>(a * cos[d] - b * sin[d]);
        head[d + half] = static_cast<float>(b * cos[d] + a * sin[d]);
      }
    }
  });
}

}  // namespace nibble::ref
