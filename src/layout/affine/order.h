// The input permutation of the affine layout, applied outside the kernels: they see columns in stored order only.
#pragma once
#include <algorithm>

#include "layout/affine/affine.h"

namespace nibble::affine {

inline std::span<const std::int32_t> order_of(const QTensor& w) { return w.part[4].as<std::int32_t>(); }

/// Calls product(args) with x in stored order.
template <class Product>
void in_stored_order(const QTensor& w, const MatArgs& args, Exec& exec, Product&& product) {
  if (!has_order(w)) return product(args);
  const Arena::Scope scope(exec.arena);
  const std::span<const std::int32_t> order = order_of(w);
  MatArgs ordered = args;
  const std::span<float> x = exec.arena.take<float>(args.m * w.cols);
  ordered.x = x.data();
  ordered.ldx = w.cols;
  exec.pool.run(args.m, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* from = args.x + i * args.ldx;
      float* to = x.data() + i * w.cols;
      for (std::size_t j = 0; j < order.size(); ++j) to[j] = from[order[j]];
    }
  });
  product(ordered);
}

/// Decoded rows [rows, cols] from stored order to input order, in place.
inline void to_input_order(const QTensor& w, std::int64_t rows, float* values, Exec& exec) {
  if (!has_order(w)) return;
  const Arena::Scope scope(exec.arena);
  const std::span<const std::int32_t> order = order_of(w);
  const std::span<float> copies = exec.arena.take<float>(exec.pool.size() * w.cols);
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    float* copy = copies.data() + worker * w.cols;
    for (std::int64_t r = begin; r < end; ++r) {
      std::copy_n(values + r * w.cols, w.cols, copy);
      for (std::size_t j = 0; j < order.size(); ++j) values[r * w.cols + order[j]] = copy[j];
    }
  });
}

}  // namespace nibble::affine
