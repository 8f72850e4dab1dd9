// The vectorised steps of LLM.int8.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/rows8/llm_int8_cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "device/cpu/simd-inl.h"
#include "hwy/cache_control.h"
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
  NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) low[r] = high[r] = hn::Zero(di32);
  std::int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    const auto in = hn::PromoteTo(di16, hn::LoadU(di8, codes + k));
    NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
      if (k % 64 == 0) hwy::Prefetch(weights + (r + R) * stride + k);
      const auto weight = hn::PromoteTo(di16, hn::LoadU(di8, weights + r * stride + k));
      low[r] = hn::ReorderWidenMulAccumulate(di32, weight, in, low[r], high[r]);
    }
  }
  NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
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

/// h of one vector, NaNs included.
using Floats = hn::ScalableTag<float>;
HWY_INLINE hn::Vec<Floats> Half(const float* from) {
  return nibble::HWY_NAMESPACE::RoundF16(Floats(), hn::LoadU(Floats(), from));
}

float Quantize(const float* HWY_RESTRICT x, std::int64_t count, float threshold, std::int8_t* HWY_RESTRICT codes) {
  const Floats df;
  const hn::Rebind<std::int8_t, Floats> di8;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const auto infinity = hn::BitCast(df, hn::Set(hn::RebindToUnsigned<Floats>(), 0x7f800000U));
  // Without a threshold nothing is an outlier, not even an infinity.
  const bool split = threshold > 0;
  const auto limit = hn::Set(df, threshold);
  const auto is_outlier = [&](hn::Vec<Floats> magnitude) HWY_ATTR { return hn::Ge(magnitude, limit); };
  const auto load = [&](std::int64_t k, float* rest) HWY_ATTR {
    if (k + lanes <= count) return Half(x + k);
    std::copy(x + k, x + count, rest);
    std::fill(rest + (count - k), rest + lanes, 0.0F);
    return Half(rest);
  };
  HWY_ALIGN float rest[hn::MaxLanes(Floats())];
  HWY_ALIGN std::int8_t tail[hn::MaxLanes(Floats())];
  auto largest = hn::Zero(df), poison = hn::Zero(df);  // poison: NaN where there was one
  for (std::int64_t k = 0; k < count; k += lanes) {
    const auto h = hn::Abs(load(k, rest));
    const auto counted = split ? hn::IfThenZeroElse(is_outlier(h), h) : h;
    poison = hn::IfThenElse(hn::IsNaN(counted), counted, poison);
    largest = hn::IfThenElse(hn::Gt(counted, largest), counted, largest);
  }
  const bool has_nan = !hn::AllFalse(df, hn::IsNaN(poison));
  const float scale = has_nan ? hn::GetLane(hn::NaN(df)) : hn::GetLane(hn::MaxOfLanes(df, largest));
  const auto inverse = hn::Set(df, 1.0F / scale * 127.0F);
  for (std::int64_t k = 0; k < count; k += lanes) {
    const auto h = load(k, rest);
    const auto code = hn::Round(hn::Mul(h, inverse));
    auto kept = hn::IfThenElseZero(hn::Lt(hn::Abs(code), infinity), code);
    if (split) kept = hn::IfThenZeroElse(is_outlier(hn::Abs(h)), kept);
    const auto clamped = hn::Min(hn::Max(kept, hn::Set(df, -128.0F)), hn::Set(df, 127.0F));
    const auto bytes = hn::DemoteTo(di8, hn::ConvertTo(hn::RebindToSigned<Floats>(), clamped));
    if (k + lanes <= count) {
      hn::StoreU(bytes, di8, codes + k);
    } else {
      hn::StoreU(bytes, di8, tail);
      std::copy_n(tail, count - k, codes + k);
    }
  }
  return scale;
}

void MarkOutliers(const float* HWY_RESTRICT x, std::int64_t count, float threshold, std::uint8_t* HWY_RESTRICT out) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  for (std::int64_t k = 0; k < count; k += lanes) {
    const std::int64_t some = std::min(lanes, count - k);
    HWY_ALIGN float rest[hn::MaxLanes(Floats())] = {};
    std::copy_n(x + k, some, rest);
    const auto outliers = hn::Ge(hn::Abs(Half(rest)), hn::Set(df, threshold));
    if (hn::AllFalse(df, outliers)) continue;
    hn::Store(hn::IfThenElseZero(outliers, hn::Set(df, 1.0F)), df, rest);
    for (std::int64_t i = 0; i < some; ++i) {
      if (rest[i] != 0) out[k + i] = 1;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::rows8
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::rows8 {
namespace {
HWY_EXPORT(Dots);
HWY_EXPORT(Quantize);
HWY_EXPORT(MarkOutliers);

void dots(const std::int8_t* weights, std::int64_t rows, const std::int8_t* codes, std::int64_t count,
          std::int64_t* sums) {
  HWY_DYNAMIC_DISPATCH(Dots)(weights, rows, codes, count, sums);
}
float quantize(const float* x, std::int64_t count, float threshold, std::int8_t* codes) {
  return HWY_DYNAMIC_DISPATCH(Quantize)(x, count, threshold, codes);
}
void mark_outliers(const float* x, std::int64_t count, float threshold, std::uint8_t* out) {
  HWY_DYNAMIC_DISPATCH(MarkOutliers)(x, count, threshold, out);
}
}  // namespace

const LlmInt8Steps kCpuSteps{&dots, &quantize, &mark_outliers};

}  // namespace nibble::rows8
#endif
