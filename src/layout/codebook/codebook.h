// codebook: additive quantization (AQLM, Egiazarian et al. 2024). A group of `og` x `ig` weights is the sum of K
// vectors, one from each codebook, times one scale per `og` output rows.
//
//              ig inputs   ig inputs                    codes of one group: K numbers u_0 .. u_(K-1)
//            +-----------+-----------+ ...
//   og rows  | group o,0 | group o,1 |           value[o*og + a][j*ig + b] =
//            +-----------+-----------+             scale[o] * sum over k, ascending, of codebook[k][u_k(o, j)][a][b]
//            | group ...                         sums and product in f32
//
// Codes are N-bit unsigned numbers kept in signed integers: stored = u - 2^N when u >= 2^(N-1), so u = stored mod 2^N.
//
//   part 0 codes      [rows / og, cols / ig, K]  i8, i16 or i32; in the file mapping, any alignment
//   part 1 codebooks  [K, 2^N, og, ig]           f16, bf16 or f32; in the file mapping, any alignment
//   part 2 scale      [rows / og]                f16, bf16 or f32
//
// QTensor::bits is N and QTensor::group is ig.
#pragma once
#include "layout/layout.h"

namespace nibble::codebook {

extern const Layout kLayout;

/// The largest N that is read: 2^24 vectors in one codebook.
inline constexpr std::int64_t kMaxBits = 24;

/// The numbers that give the format its name, from the shapes of the parts.
struct Shape4 {
  std::int64_t codebooks = 0;  ///< K
  std::int64_t entries = 0;    ///< 2^N
  std::int64_t out_group = 0, in_group = 0;
};
Shape4 shape_of(const QTensor& w);

/// Checks all shapes, dtypes and, where the integer type is wider than N bits, every code: Error(bad_input) that names
/// the part.
QTensor make(const View& codes, const View& codebooks, const View& scale, std::shared_ptr<const void> owner,
             Exec& exec);

/// Row `row` as f32.
void decode_row(const QTensor& w, std::int64_t row, float* out);

}  // namespace nibble::codebook
