// The generic matrix product: knows x, y and the vector width, not the format. A layout supplies a type
//
//   struct Row {
//     Row(const QTensor& w, DType compute);
//     void Factors(std::int64_t row, std::int64_t k0, std::int64_t count, float* out) const;   // see CpuRows::factors
//     float Scale(std::int64_t row) const;                                                   // see CpuRows::row_scale
//   };
//
// and, where it is worth the code:
//
//     // One token: acc[r] += row + r . x lane by lane over the leading columns, for kRowBlock rows; gives how many
//     columns (a multiple of
//     // 128). The same sums as from decoded chunks, without the way through memory.
//     std::int64_t Dots(std::int64_t row, const float* x, float* acc) const;
//     const std::uint8_t* Data(std::int64_t row, std::int64_t k0) const;                     // where that chunk lies
//
// Rows are decoded chunk by chunk into first-level cache and multiplied from there; the store and the load that this
// costs use ports that the arithmetic leaves idle. Each output is one vector of partial sums over increasing k, reduced
// at the end, whatever the blocking: so it does not depend on m, on the other rows, or on the number of threads.
#if defined(NIBBLE_LAYOUT_MATMUL_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_LAYOUT_MATMUL_INL_H
#undef NIBBLE_LAYOUT_MATMUL_INL_H
#else
#define NIBBLE_LAYOUT_MATMUL_INL_H
#endif

#include <algorithm>

#include "device/cpu/simd-inl.h"
#include "hwy/cache_control.h"
#include "layout/cpu_matmul.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

/// Vectors of at most 16 lanes, as scratch_floats provides for.
using Floats = hn::CappedTag<float, 16>;

/// acc[r][i] += w[r] . x[i] lane by lane, over `count` inputs (a multiple of the lanes).
template <int R, int M>
HWY_INLINE void Tile(const float* HWY_RESTRICT w, const float* HWY_RESTRICT x, std::int64_t ldx, std::int64_t count,
                     float* HWY_RESTRICT acc, std::int64_t acc_row) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  hn::Vec<Floats> sums[R][M];
  NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
    NIBBLE_UNROLL(M) for (int i = 0; i < M; ++i) sums[r][i] = hn::Load(df, acc + r * acc_row + i * lanes);
  }
  for (std::int64_t k = 0; k < count; k += lanes) {
    hn::Vec<Floats> in[M];
    NIBBLE_UNROLL(M) for (int i = 0; i < M; ++i) in[i] = hn::LoadU(df, x + i * ldx + k);
    NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
      const auto weight = hn::Load(df, w + r * kChunkStride + k);
      NIBBLE_UNROLL(M) for (int i = 0; i < M; ++i) sums[r][i] = hn::MulAdd(weight, in[i], sums[r][i]);
    }
  }
  NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
    NIBBLE_UNROLL(M) for (int i = 0; i < M; ++i) hn::Store(sums[r][i], df, acc + r * acc_row + i * lanes);
  }
}

/// All tokens against R decoded rows.
template <int R, int M>
HWY_INLINE void Tokens(const RowsJob& job, const float* w, std::int64_t k0, std::int64_t count, float* acc) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Floats()));
  std::int64_t i = 0;
  for (; i + M <= job.m; i += M)
    Tile<R, M>(w, job.x + i * job.ldx + k0, job.ldx, count, acc + i * lanes, job.m * lanes);
  for (; i < job.m; ++i) Tile<R, 1>(w, job.x + i * job.ldx + k0, job.ldx, count, acc + i * lanes, job.m * lanes);
}

HWY_INLINE void Block(const RowsJob& job, const float* w, std::int64_t rows, std::int64_t k0, std::int64_t count,
                      float* acc) {
  const std::int64_t acc_row = job.m * static_cast<std::int64_t>(hn::Lanes(Floats()));
  if (rows == kRowBlock && job.m == 1) return Tokens<kRowBlock, 1>(job, w, k0, count, acc);
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    Tokens<4, HWY_TARGET == HWY_AVX3 ? 4 : 2>(job, w + r * kChunkStride, k0, count, acc + r * acc_row);
  for (; r < rows; ++r) Tokens<1, 4>(job, w + r * kChunkStride, k0, count, acc + r * acc_row);
}

/// Asks for what is read after chunk `k0` of row `row`: the same row's next chunk, or the first one of the next block's
/// row. Reading jumps from row to row, which the hardware's prefetchers follow badly.
template <class Row>
HWY_INLINE void PrefetchNext(const Row& decoder, std::int64_t row, std::int64_t k0, std::int64_t rows_end,
                             std::int64_t cols) {
  if constexpr (requires { decoder.Data(row, k0); }) {
    const bool same = k0 + kChunk < cols;
    if (!same && row + kRowBlock >= rows_end) return;
    const std::int64_t next_row = same ? row : row + kRowBlock, next_k = same ? k0 + kChunk : 0;
    const std::uint8_t* begin = decoder.Data(next_row, next_k);
    const std::uint8_t* end = decoder.Data(next_row, std::min(cols, next_k + kChunk));
    for (; begin < end; begin += 64) hwy::Prefetch(begin);
  }
}

/// Dots for rows whose vectors stand alone: load(row r of the block, k) gives the weights at columns k, k + 1, ...
template <class F>
HWY_INLINE std::int64_t DotsOf(std::int64_t cols, const float* HWY_RESTRICT x, float* HWY_RESTRICT acc, F&& load) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const std::int64_t end = cols / 128 * 128;
  auto s0 = hn::Load(df, acc), s1 = hn::Load(df, acc + lanes), s2 = hn::Load(df, acc + 2 * lanes),
       s3 = hn::Load(df, acc + 3 * lanes);
  auto s4 = hn::Load(df, acc + 4 * lanes), s5 = hn::Load(df, acc + 5 * lanes), s6 = hn::Load(df, acc + 6 * lanes),
       s7 = hn::Load(df, acc + 7 * lanes);
  NIBBLE_UNROLL(2) for (std::int64_t k = 0; k < end; k += lanes) {
    const auto in = hn::Load(df, x + k);
    s0 = hn::MulAdd(load(0, k), in, s0);
    s1 = hn::MulAdd(load(1, k), in, s1);
    s2 = hn::MulAdd(load(2, k), in, s2);
    s3 = hn::MulAdd(load(3, k), in, s3);
    s4 = hn::MulAdd(load(4, k), in, s4);
    s5 = hn::MulAdd(load(5, k), in, s5);
    s6 = hn::MulAdd(load(6, k), in, s6);
    s7 = hn::MulAdd(load(7, k), in, s7);
  }
  hn::Store(s0, df, acc);
  hn::Store(s1, df, acc + lanes);
  hn::Store(s2, df, acc + 2 * lanes);
  hn::Store(s3, df, acc + 3 * lanes);
  hn::Store(s4, df, acc + 4 * lanes);
  hn::Store(s5, df, acc + 5 * lanes);
  hn::Store(s6, df, acc + 6 * lanes);
  hn::Store(s7, df, acc + 7 * lanes);
  return end;
}

template <class Row>
HWY_INLINE void MatMulRows(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const Row decoder(*job.w, job.compute);
  float* weights = job.scratch;
  float* acc = weights + kRowBlock * kChunkStride;
  const std::int64_t cols = job.w->cols;
  for (std::int64_t block = row0; block < row1; block += kRowBlock) {
    const std::int64_t rows = std::min(kRowBlock, row1 - block);
    std::fill_n(acc, rows * job.m * lanes, 0.0F);
    std::int64_t done = 0;
    if constexpr (requires { decoder.Dots(block, job.x, acc); }) {
      if (job.m == 1 && rows == kRowBlock) done = decoder.Dots(block, job.x, acc);
    }
    for (std::int64_t k0 = done; k0 < cols; k0 += kChunk) {
      const std::int64_t count = std::min(kChunk, cols - k0);
      for (std::int64_t r = 0; r < rows; ++r) {
        PrefetchNext(decoder, block + r, k0, row1, cols);
        decoder.Factors(block + r, k0, count, weights + r * kChunkStride);
      }
      Block(job, weights, rows, k0, padded(count), acc);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const float scale = decoder.Scale(block + r), bias = job.bias != nullptr ? job.bias[block + r] : 0;
      for (std::int64_t i = 0; i < job.m; ++i) {
        const float sum = hn::GetLane(hn::SumOfLanes(df, hn::Load(df, acc + (r * job.m + i) * lanes)));
        job.y[i * job.ldy + block + r] = sum * scale + bias;
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif
