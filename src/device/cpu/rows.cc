// Norms and rotary embedding: operators whose rows are independent. Sums run over vector lanes in increasing order,
// reduced at the end.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/rows.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <cmath>

#include "device/cpu/norm_args.h"
#include "device/cpu/ops.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;

/// Sum over k < cols of f(vector at k), the tail added scalar by scalar through g(k).
template <class F, class G>
HWY_INLINE float Sum(std::int64_t cols, F&& f, G&& g) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  auto sum0 = hn::Zero(df), sum1 = hn::Zero(df);
  std::int64_t k = 0;
  for (; k + 2 * lanes <= cols; k += 2 * lanes) {
    sum0 = hn::Add(sum0, f(k));
    sum1 = hn::Add(sum1, f(k + lanes));
  }
  float total = hn::GetLane(hn::SumOfLanes(df, hn::Add(sum0, sum1)));
  for (; k < cols; ++k) total += g(k);
  return total;
}

void RmsNorm(const NormArgs& a, const float* x, float* y) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const float squares = Sum(
      a.cols,
      [&](std::int64_t k) HWY_ATTR {
        const auto v = hn::LoadU(df, x + k);
        return hn::Mul(v, v);
      },
      [&](std::int64_t k) { return x[k] * x[k]; });
  const float inverse = 1 / std::sqrt(squares / static_cast<float>(a.cols) + a.eps);
  std::int64_t k = 0;
  for (; k + lanes <= a.cols; k += lanes) {
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(df, x + k), hn::Set(df, inverse)), hn::LoadU(df, a.weight + k)), df, y + k);
  }
  for (; k < a.cols; ++k) y[k] = x[k] * inverse * a.weight[k];
}

void LayerNorm(const NormArgs& a, const float* x, float* y) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const auto cols = static_cast<float>(a.cols);
  const float mean =
      Sum(
          a.cols, [&](std::int64_t k) HWY_ATTR { return hn::LoadU(df, x + k); }, [&](std::int64_t k) { return x[k]; }) /
      cols;
  const auto means = hn::Set(df, mean);
  const float squares = Sum(
      a.cols,
      [&](std::int64_t k) HWY_ATTR {
        const auto v = hn::Sub(hn::LoadU(df, x + k), means);
        return hn::Mul(v, v);
      },
      [&](std::int64_t k) { return (x[k] - mean) * (x[k] - mean); });
  const float inverse = 1 / std::sqrt(squares / cols + a.eps);
  std::int64_t k = 0;
  for (; k + lanes <= a.cols; k += lanes) {
    auto v = hn::Mul(hn::Sub(hn::LoadU(df, x + k), means), hn::Set(df, inverse));
    if (a.weight != nullptr) v = hn::Mul(v, hn::LoadU(df, a.weight + k));
    if (a.bias != nullptr) v = hn::Add(v, hn::LoadU(df, a.bias + k));
    hn::StoreU(v, df, y + k);
  }
  for (; k < a.cols; ++k) {
    y[k] = (x[k] - mean) * inverse * (a.weight != nullptr ? a.weight[k] : 1) + (a.bias != nullptr ? a.bias[k] : 0);
  }
}

void Rotate(const float* cos, const float* sin, std::int64_t half, std::int64_t heads, std::int64_t head_dim,
            float* row) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  for (std::int64_t h = 0; h < heads; ++h) {
    float* low = row + h * head_dim;
    float* high = low + half;
    std::int64_t d = 0;
    for (; d + lanes <= half; d += lanes) {
      const auto a = hn::LoadU(df, low + d), b = hn::LoadU(df, high + d), c = hn::LoadU(df, cos + d),
                 s = hn::LoadU(df, sin + d);
      hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), df, low + d);
      hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), df, high + d);
    }
    for (; d < half; ++d) {
      const float a = low[d], b = high[d];
      low[d] = a * cos[d] - b * sin[d];
      high[d] = b * cos[d] + a * sin[d];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::cpu {
namespace {
HWY_EXPORT(RmsNorm);
HWY_EXPORT(LayerNorm);
HWY_EXPORT(Rotate);
}  // namespace

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t cols, float* y,
              Exec& exec) {
  exec.pool.run(rows, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r)
      HWY_DYNAMIC_DISPATCH(RmsNorm)({weight, nullptr, eps, cols}, x + r * cols, y + r * cols);
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows, std::int64_t cols,
                float* y, Exec& exec) {
  exec.pool.run(rows, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r)
      HWY_DYNAMIC_DISPATCH(LayerNorm)({weight, bias, eps, cols}, x + r * cols, y + r * cols);
  });
}

void rope(float* x, const RopeTable& table, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, Exec& exec) {
  const std::int64_t half = table.rotary_dim / 2;
  exec.pool.run(rows, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      HWY_DYNAMIC_DISPATCH(Rotate)
      (table.cos + r * half, table.sin + r * half, half, heads, head_dim, x + r * heads * head_dim);
    }
  });
}

}  // namespace nibble::cpu
#endif
