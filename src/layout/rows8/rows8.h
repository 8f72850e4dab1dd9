// rows8: one byte per weight and one scale per output row: value = round(dtype, scale[row] * q).
// Quanto qint8 / qfloat8, LLM.int8.
//
//   part 0 q      [rows, cols]  i8, f8_e4m3fn, f8_e5m2 or f8_e4m3fnuz; in the file mapping, any alignment
//   part 1 scale  [rows]        f32, f16 or bf16 (QTensor::dtype says to what values are rounded)
//
// A third part makes it LLM.int8, which quantizes the input too: see llm_int8.h.
#pragma once
#include "layout/layout.h"

namespace nibble::rows8 {

extern const Layout kLayout;

/// `scale` has `rows` elements or, when one scale serves all rows, one (it is then spread). Shapes are checked:
/// Error(bad_input).
QTensor make(const View& q, const View& scale, DType dtype, std::shared_ptr<const void> owner);

}  // namespace nibble::rows8
