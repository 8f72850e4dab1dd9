// Quanto's weight quantization: a float weight in, the tensors of its checkpoint out, with the library's bits.
#pragma once
#include <string>

#include "base/thread_pool.h"
#include "quant/quanto/qtype.h"
#include "tensor/view.h"

namespace nibble::quanto {

/// The stored tensors of one weight, named and shaped as stored_parts() says. `shift` has no elements for 8-bit types.
struct StoredWeight {
  Tensor data, scale, shift;
};

/// Quantizes `weight` [N, ...] (f32, f16 or bf16) along its first axis. `name` begins error messages: Error(bad_input)
/// when a value is NaN or infinite. The same bytes for any number of threads. One difference from the library: a zero
/// row of a float8 type is stored as zeros, where the library stores NaN.
StoredWeight quantize_weight(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool);

/// 8-bit types along the last axis (the library's axis=-1, which no checkpoint uses): codes like `weight`, scale
/// [1, ..., K].
StoredWeight quantize_last_axis(QType qtype, const View& weight, const std::string& name);

/// The shift that remains after the library's TinyGemm class (bf16, groups of 128, int4): it keeps 8 * scale - shift in
/// bf16 and computes the shift back from it when saving.
float tinygemm_shift(float scale, float shift);

/// The float values of stored rows: what the library's dequantize() gives. `row_codes` are the codes of one row.
struct RowCodes {
  const std::byte* codes = nullptr;  ///< [cols]: one byte per weight
  std::int64_t first_group = 0;      ///< index of the row's first scale
};
void dequantize_row(const WeightSpec& spec, const Extent& extent, const View& scale, const View& shift, RowCodes row,
                    float* out);

}  // namespace nibble::quanto
