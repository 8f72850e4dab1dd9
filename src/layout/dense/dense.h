// dense: plain float weights, row major [rows, cols].
//
//   part 0 weight  [rows, cols]  f32, f16 or bf16; in the file mapping, any alignment
#pragma once
#include "layout/layout.h"

namespace nibble::dense {

extern const Layout kLayout;

/// A dense weight over `weight` [rows, cols] (f32, f16, bf16; other float dtypes are refused). `owner` keeps its memory
/// alive.
QTensor make(const View& weight, std::shared_ptr<const void> owner);

}  // namespace nibble::dense
