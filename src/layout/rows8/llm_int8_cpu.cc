// Exact int8 dot products for LLM.int8.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/rows8/llm_int8_cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "hwy/highway.h"
#include "layout/rows8/llm_int8.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::rows8 {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Products per pass: sums of this many cannot leave 32 bits (2^14 each).
constexpr std::int64_t kPass = 1 << 16;

/// sums[r] += weights[r] . codes, for R rows `stride` bytes apart.
template <int R>
HWY_INLINE void Pass(const std::int8_t* HWY_RESTRICT weights, std::int64_t stride,
                     const std::int8_t* HWY_RESTRICT codes, std::int64_t count, std::int64_t* HWY_RESTRICT sums) {
  const hn::ScalableTag<std::int16_t> di16;
  const hn::RepartitionToWide<decltype(di16)> di32;
  const hn::Rebind<std::int8_t, decltype(di16)> di8;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(di16));
  hn::Vec<decltype(di32)> low[R], high[R];
  HWY_UNROLL(R) for (int r = 0; r < R; ++r) low[r] = high[r] = hn::Zero(di32);
  std::int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    const auto in = hn::PromoteTo(di16, hn::LoadU(di8, codes + k));
    HWY_UNROLL(R) for (int r = 0; r < R; ++r) {
      const auto weight = hn::PromoteTo(di16, hn::LoadU(di8, weights + r * stride + k));
      low[r] = hn::ReorderWidenMulAccumulate(di32, weight, in, low[r], high[r]);
    }
  }
  HWY_UNROLL(R) for (int r = 0; r < R; ++r) {
    std::int64_t sum = hn::GetLane(hn::SumOfLanes(di32, hn::Add(low[r], high[r])));
    for (std::int64_t rest = k; rest < count; ++rest) sum += std::int32_t{weights[r * stride + rest]} * codes[rest];
    sums[r] += sum;
  }
}

void Dots(const std::int8_t* weights, std::int64_t rows, const std::int8_t* codes, std::int64_t count,
          std::int64_t* sums) {
  std::fill_n(sums, rows, std::int64_t{0});
  for (std::int64_t k0 = 0; k0 < count; k0 += kPass) {
    const std::int64_t part = std::min(kPass, count - k0);
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) Pass<4>(weights + r * count + k0, count, codes + k0, part, sums + r);
    for (; r < rows; ++r) Pass<1>(weights + r * count + k0, count, codes + k0, part, sums + r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::rows8
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::rows8 {
namespace {
HWY_EXPORT(Dots);
}

void int8_dots_cpu(const std::int8_t* weights, std::int64_t rows, const std::int8_t* codes, std::int64_t count,
                   std::int64_t* sums) {
  HWY_DYNAMIC_DISPATCH(Dots)(weights, rows, codes, count, sums);
}

}  // namespace nibble::rows8
#endif
