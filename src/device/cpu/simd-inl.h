// Rounding of f32 vectors to narrower formats, used by kernels of all layouts. Included once per Highway target.
#if defined(NIBBLE_DEVICE_CPU_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_DEVICE_CPU_SIMD_INL_H
#undef NIBBLE_DEVICE_CPU_SIMD_INL_H
#else
#define NIBBLE_DEVICE_CPU_SIMD_INL_H
#endif

#include <cstdint>

#include "base/dtype.h"
#include "device/cpu/unroll.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// f32 rounded to bf16, ties to even. Exact for every value but NaNs whose payload fills the low 16 bits; bf16 inputs
/// have none.
template <class DF, class V = hn::Vec<DF>>
HWY_INLINE V RoundBf16Finite(DF df, V v) {
  const hn::RebindToUnsigned<DF> du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1U));
  const auto up = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffU)));
  return hn::BitCast(df, hn::And(up, hn::Set(du, 0xffff0000U)));
}

template <class DF, class V = hn::Vec<DF>>
HWY_INLINE V RoundBf16(DF df, V v) {
  return hn::IfThenElse(hn::IsNaN(v), v, RoundBf16Finite(df, v));
}

/// f32 rounded to f16, ties to even: adding and subtracting 1.5 * 2^13 times the value's power of two drops the bits
/// below.
template <class DF, class V = hn::Vec<DF>>
HWY_INLINE V RoundF16(DF df, V v) {
  const hn::RebindToUnsigned<DF> du;
  const auto power = hn::BitCast(df, hn::And(hn::BitCast(du, v), hn::Set(du, 0x7f800000U)));
  const auto big = hn::Mul(hn::Max(power, hn::Set(df, 0x1p-14F)), hn::Set(df, 12288.0F));
  const auto rounded = hn::Sub(hn::Add(v, big), big);
  const auto infinity = hn::BitCast(df, hn::Set(du, 0x7f800000U));
  return hn::CopySign(hn::IfThenElse(hn::Ge(hn::Abs(v), hn::Set(df, 65520.0F)), infinity, rounded), v);
}

template <class DF, class V = hn::Vec<DF>>
HWY_INLINE V RoundTo(DF df, DType dtype, V v) {
  if (dtype == DType::bf16) return RoundBf16(df, v);
  if (dtype == DType::f16) return RoundF16(df, v);
  return v;
}

/// out[0, count) = in[0, count) rounded to dtype, out[count, padded) = 0. `padded` is a multiple of the vector length.
inline void RoundRow(DType dtype, const float* HWY_RESTRICT in, std::int64_t count, float* HWY_RESTRICT out,
                     std::int64_t padded) {
  const hn::ScalableTag<float> df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(RoundTo(df, dtype, hn::LoadU(df, in + i)), df, out + i);
  for (; i < count; ++i) out[i] = round_to(dtype, in[i]);
  for (; i < padded; ++i) out[i] = 0;
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();
#endif
