#include "layout/gemm_simd.h"

#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/gemm_simd.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "device/cpu/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::gemm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;

/// Vectors of tokens in a group, and rows of weights in registers at once: 24 sums where there are 32 registers, 12
/// where there are 16.
constexpr int kVectors = 3;
constexpr int kRows = HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4 ? 4 : 8;
/// Columns multiplied between additions to the sums in memory: that much of a group of tokens stays in first-level
/// cache, and short sums round less.
constexpr std::int64_t kColumns = 64;

/// Columns of x asked for ahead: it comes from the outer caches once per panel.
constexpr std::int64_t kAhead = 16;

HWY_INLINE std::int64_t GroupTokens() { return kVectors * static_cast<std::int64_t>(hn::Lanes(Floats())); }

/// sums[r][v] (+)= w[r] . x[v] over `count` columns; x and sums lie group by group.
template <int V>
HWY_INLINE void Multiply(const float* HWY_RESTRICT w, const float* HWY_RESTRICT x, std::int64_t count, bool first,
                         float* HWY_RESTRICT sums) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const std::int64_t group = kVectors * lanes;
  hn::Vec<Floats> acc[kRows][V];
  NIBBLE_UNROLL(kRows) for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL(V) for (int v = 0; v < V; ++v) acc[r][v] = hn::Zero(df);
  }
  for (std::int64_t k = 0; k < count; ++k) {
    hn::Vec<Floats> in[V];
    NIBBLE_UNROLL(V) for (int v = 0; v < V; ++v) hwy::Prefetch(x + (k + kAhead) * group + v * lanes);
    NIBBLE_UNROLL(V) for (int v = 0; v < V; ++v) in[v] = hn::Load(df, x + k * group + v * lanes);
    NIBBLE_UNROLL(kRows) for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::Set(df, w[r * kChunkStride + k]);
      NIBBLE_UNROLL(V) for (int v = 0; v < V; ++v) acc[r][v] = hn::MulAdd(weight, in[v], acc[r][v]);
    }
  }
  NIBBLE_UNROLL(kRows) for (int r = 0; r < kRows; ++r) {
    NIBBLE_UNROLL(V) for (int v = 0; v < V; ++v) {
      float* at = sums + r * group + v * lanes;
      hn::Store(first ? acc[r][v] : hn::Add(hn::Load(df, at), acc[r][v]), df, at);
    }
  }
}

void Pack(const MatArgs& args, std::int64_t cols, DType compute, std::int64_t index, float* HWY_RESTRICT packed) {
  constexpr std::int64_t kStep = 64;
  const std::int64_t group = GroupTokens(), token0 = index * group, tokens = std::min(group, args.m - token0);
  float* to = packed + token0 * cols;
  HWY_ALIGN float row[kStep];
  for (std::int64_t k0 = 0; k0 < cols; k0 += kStep) {
    const std::int64_t count = std::min(kStep, cols - k0);
    for (std::int64_t t = 0; t < tokens; ++t) {
      nibble::HWY_NAMESPACE::RoundRow(compute, args.x + (token0 + t) * args.ldx + k0, count, row, count);
      for (std::int64_t k = 0; k < count; ++k) to[(k0 + k) * group + t] = row[k];
    }
    for (std::int64_t k = 0; tokens < group && k < count; ++k)
      std::fill_n(to + (k0 + k) * group + tokens, group - tokens, 0.0F);
  }
}

/// All groups of tokens against `rows` decoded rows (a multiple of kRows), columns [k0, k0 + count).
void MultiplyPanel(const Job& job, const float* weights, std::int64_t rows, std::int64_t k0, std::int64_t count,
                   float* sums) {
  const std::int64_t group = GroupTokens(), cols = job.w->cols, lanes = group / kVectors;
  for (std::int64_t part = 0; part < count; part += kColumns) {
    const std::int64_t columns = std::min(kColumns, count - part);
    const bool first = k0 + part == 0;
    for (std::int64_t token = 0; token < job.m; token += group) {
      const float* x = job.x + token * cols + (k0 + part) * group;
      const std::int64_t vectors = std::min<std::int64_t>(kVectors, (job.m - token + lanes - 1) / lanes);
      for (std::int64_t r = 0; r < rows; r += kRows) {
        const float* w = weights + r * kChunkStride + part;
        float* to = sums + token * kPanel + r * group;
        if (vectors == 3) Multiply<3>(w, x, columns, first, to);
        if (vectors == 2) Multiply<2>(w, x, columns, first, to);
        if (vectors == 1) Multiply<1>(w, x, columns, first, to);
      }
    }
  }
}

/// Scale and bias of a panel's rows.
struct RowTerms {
  RowTerms(const Job& job, std::int64_t row0, std::int64_t rows) {
    for (std::int64_t r = 0; r < rows; ++r) {
      scale[r] = job.layout->row_scale(*job.w, row0 + r);
      bias[r] = job.bias != nullptr ? job.bias[row0 + r] : 0;
    }
  }
  float scale[kPanel], bias[kPanel];
};

#if HWY_TARGET != HWY_SCALAR
/// Scales the sums of four rows and four tokens, `group` apart, adds the bias and turns them to y's order.
HWY_INLINE void StoreTile(const float* HWY_RESTRICT sums, std::int64_t group, const float* scale, const float* bias,
                          float* HWY_RESTRICT y, std::int64_t ldy) {
  const hn::CappedTag<float, 4> d;
  const auto r0 = hn::LoadU(d, sums), r1 = hn::LoadU(d, sums + group);
  const auto r2 = hn::LoadU(d, sums + 2 * group), r3 = hn::LoadU(d, sums + 3 * group);
  const auto low01 = hn::InterleaveLower(d, r0, r1), high01 = hn::InterleaveUpper(d, r0, r1);
  const auto low23 = hn::InterleaveLower(d, r2, r3), high23 = hn::InterleaveUpper(d, r2, r3);
  const auto factor = hn::LoadU(d, scale), term = hn::LoadU(d, bias);
  const auto put = [&](hn::Vec<decltype(d)> v, float* to)
                       HWY_ATTR { hn::StoreU(hn::Add(hn::Mul(v, factor), term), d, to); };
  put(hn::ConcatLowerLower(d, low23, low01), y);
  put(hn::ConcatUpperUpper(d, low23, low01), y + ldy);
  put(hn::ConcatLowerLower(d, high23, high01), y + 2 * ldy);
  put(hn::ConcatUpperUpper(d, high23, high01), y + 3 * ldy);
}
#endif

/// The outputs of rows [row0, row0 + rows).
void StorePanel(const Job& job, std::int64_t row0, std::int64_t rows, const float* sums) {
  const std::int64_t group = GroupTokens();
  const RowTerms terms(job, row0, rows);
  for (std::int64_t token = 0; token < job.m; token += 4) {
    const float* from = sums + token / group * group * kPanel + token % group;
    float* to = job.y + token * job.ldy + row0;
    std::int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; job.m - token >= 4 && r + 4 <= rows; r += 4) {
      StoreTile(from + r * group, group, terms.scale + r, terms.bias + r, to + r, job.ldy);
    }
#endif
    for (; r < rows; ++r) {
      for (std::int64_t t = 0; t < std::min<std::int64_t>(4, job.m - token); ++t) {
        to[t * job.ldy + r] = from[r * group + t] * terms.scale[r] + terms.bias[r];
      }
    }
  }
}

void MatMul(const Job& job, std::int64_t row0, std::int64_t row1) {
  float* weights = job.scratch;
  float* sums = weights + kPanel * kChunkStride;
  for (std::int64_t panel = row0; panel < row1; panel += kPanel) {
    const std::int64_t rows = std::min(kPanel, row1 - panel), padded_rows = (rows + kRows - 1) / kRows * kRows;
    for (std::int64_t k0 = 0; k0 < job.w->cols; k0 += kChunk) {
      const std::int64_t count = std::min(kChunk, job.w->cols - k0);
      for (std::int64_t r = 0; r < rows; ++r)
        job.layout->factors(*job.w, job.compute, panel + r, k0, count, weights + r * kChunkStride);
      for (std::int64_t r = rows; r < padded_rows; ++r) std::fill_n(weights + r * kChunkStride, count, 0.0F);
      MultiplyPanel(job, weights, padded_rows, k0, count, sums);
    }
    StorePanel(job, panel, rows, sums);
  }
}

std::int64_t Groups(std::int64_t m) { return (m + GroupTokens() - 1) / GroupTokens(); }

}  // namespace HWY_NAMESPACE
}  // namespace nibble::gemm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::gemm {
namespace {
HWY_EXPORT(Groups);
HWY_EXPORT(Pack);
HWY_EXPORT(MatMul);
}  // namespace

std::int64_t groups_of(std::int64_t m) { return HWY_DYNAMIC_DISPATCH(Groups)(m); }

void pack(const MatArgs& args, std::int64_t cols, DType compute, std::int64_t group, float* packed) {
  HWY_DYNAMIC_DISPATCH(Pack)(args, cols, compute, group, packed);
}

void matmul(const Job& job, std::int64_t row0, std::int64_t row1) { HWY_DYNAMIC_DISPATCH(MatMul)(job, row0, row1); }

}  // namespace nibble::gemm
#endif
