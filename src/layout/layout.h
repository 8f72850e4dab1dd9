// Layouts: how a weight matrix lies in memory for kernels. Schemes are many, layouts are few; kernels know only the
// layout. A layout is a constexpr row of function pointers per target; a missing ability is a null pointer, so tables
// and docs enumerate it.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "device/device.h"
#include "tensor/view.h"

namespace nibble {

struct QTensor;

/// y = x W^T (+ bias): x is [m, cols] with row stride ldx, y is [m, rows] with row stride ldy (both f32, strides in
/// elements).
struct MatArgs {
  const float* x = nullptr;
  std::int64_t m = 0;
  std::int64_t ldx = 0;
  float* y = nullptr;
  std::int64_t ldy = 0;
  const float* bias = nullptr;  ///< f32 [rows] or null
};

struct Kernels {
  /// The product above. Exec::compute says to what the inputs are rounded; sums are f32 (ref: double).
  void (*matmul)(const QTensor& w, const MatArgs& args, Exec& exec) = nullptr;
  /// Rows [row0, row0 + rows) as f32 values [rows, cols]: on ref, and so everywhere, bit for bit the values that the
  /// scheme's own library dequantizes to.
  void (*decode)(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) = nullptr;
};

struct Layout {
  std::string_view name;
  std::span<const std::string_view> parts;       ///< names of QTensor::part, in order
  std::array<const Kernels*, kTargets> kernels;  ///< by Target; [ref] is complete, others may be null
};

/// A weight matrix [rows = outputs n, cols = inputs k] in some layout. A small value; `owner` keeps the memory alive.
struct QTensor {
  const Layout* layout = nullptr;
  std::int64_t rows = 0, cols = 0;
  std::int32_t bits = 0;     ///< bits of one code (16 for a bf16 dense matrix)
  std::int64_t group = 0;    ///< inputs that share a scale; cols when a whole row does
  DType dtype = DType::f32;  ///< the float type in which values are defined (decode rounds to it)
  std::array<View, 6> part{};
  std::shared_ptr<const void> owner;

  bool empty() const { return layout == nullptr; }
  /// Bytes of all parts.
  std::int64_t size_bytes() const;
};

/// All layouts, from layouts.def.
std::span<const Layout* const> all_layouts();

/// y = x W^T + bias with the best kernel of exec.target: the layout's own, else ref's.
void matmul(const QTensor& w, const MatArgs& args, Exec& exec);

/// Several products of one input (q/k/v, gate/up): the same result as one call each, with fewer barriers.
struct MatJob {
  const QTensor* w;
  MatArgs args;
};
void matmul_many(std::span<const MatJob> jobs, Exec& exec);

/// Values of rows [row0, row0 + rows) as f32.
void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec);

}  // namespace nibble
