// Reference kernels of any layout, from one scalar function decode_row(w, row, out[cols]): the only definition of its
// values.
#pragma once
#include <algorithm>

#include "layout/layout.h"

namespace nibble::ref {

/// `x` as the arithmetic sees it: [m, cols] rounded to exec.compute, contiguous, in the arena.
inline std::span<const float> rounded_input(const MatArgs& args, std::int64_t cols, Exec& exec) {
  const std::span<float> x = exec.arena.take<float>(args.m * cols);
  exec.pool.run(args.m, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t k = 0; k < cols; ++k) {
        x[static_cast<std::size_t>(i * cols + k)] = round_to(exec.compute, args.x[i * args.ldx + k]);
      }
    }
  });
  return x;
}

template <class DecodeRow>
void matmul(const QTensor& w, const MatArgs& args, Exec& exec, DecodeRow&& decode_row) {
  const Arena::Scope scope(exec.arena);
  const std::span<const float> x = rounded_input(args, w.cols, exec);
  const std::span<float> rows = exec.arena.take<float>(exec.pool.size() * w.cols);
  exec.pool.run(w.rows, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    float* row = rows.data() + worker * w.cols;
    for (std::int64_t n = begin; n < end; ++n) {
      decode_row(w, n, row);
      std::transform(row, row + w.cols, row, [&](float value) { return round_to(exec.compute, value); });
      for (std::int64_t i = 0; i < args.m; ++i) {
        double sum = args.bias != nullptr ? args.bias[n] : 0;
        for (std::int64_t k = 0; k < w.cols; ++k)
          sum += static_cast<double>(x[static_cast<std::size_t>(i * w.cols + k)]) * row[k];
        args.y[i * args.ldy + n] = static_cast<float>(sum);
      }
    }
  });
}

template <class DecodeRow>
void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec, DecodeRow&& decode_row) {
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) decode_row(w, row0 + r, out + r * w.cols);
  });
}

}  // namespace nibble::ref
