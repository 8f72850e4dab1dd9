// One byte per weight on the CPU. Products use the codes themselves (exact in every arithmetic) and scale the sum:
// fewer roundings than the values that decode() gives, so a product differs from the reference by the rounding of those
// values.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/rows8/cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "layout/matmul-inl.h"
#include "layout/rows8/kernels.h"
#include "layout/rows8/llm_int8.h"
#include "layout/rows8/rows8.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::rows8 {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using nibble::HWY_NAMESPACE::Floats;

/// A float with `kMantissa` mantissa bits and a sign, widened. `bias` is 127 minus its exponent bias. Subnormals are
/// made as normal numbers less one: operations on subnormal f32 would be a hundred times slower.
template <int kMantissa, class V>
HWY_INLINE hn::Vec<Floats> Widen(V codes, std::uint32_t bias) {
  const Floats df;
  const hn::RebindToUnsigned<Floats> du;
  const auto magnitude = hn::ShiftLeft<23 - kMantissa>(hn::And(codes, hn::Set(du, 0x7fU)));
  const auto normal = hn::BitCast(df, hn::Add(magnitude, hn::Set(du, bias << 23)));
  const auto least = hn::BitCast(df, hn::Set(du, (bias + 1) << 23));
  const auto tiny = hn::Sub(hn::Or(hn::BitCast(df, magnitude), least), least);
  const auto is_tiny =
      hn::Lt(hn::BitCast(hn::RebindToSigned<Floats>(), magnitude), hn::Set(hn::RebindToSigned<Floats>(), 1 << 23));
  const auto sign = hn::BitCast(df, hn::ShiftLeft<24>(hn::And(codes, hn::Set(du, 0x80U))));
  return hn::Or(hn::IfThenElse(hn::RebindMask(df, is_tiny), tiny, normal), sign);
}

template <DType kType>
HWY_INLINE hn::Vec<Floats> LoadCodes(const std::uint8_t* from) {
  const Floats df;
  const hn::Rebind<std::uint8_t, Floats> du8;
  const hn::RebindToUnsigned<Floats> du;
  const auto bytes = hn::LoadU(du8, from);
  if constexpr (kType == DType::i8) {
    return hn::ConvertTo(
        df, hn::PromoteTo(hn::RebindToSigned<Floats>(), hn::BitCast(hn::RebindToSigned<decltype(du8)>(), bytes)));
  } else {
    const auto codes = hn::PromoteTo(du, bytes);
    const auto nan = hn::NaN(df);
    if constexpr (kType == DType::f8_e4m3fn) {
      const auto is_nan = hn::Eq(hn::And(codes, hn::Set(du, 0x7fU)), hn::Set(du, 0x7fU));
      return hn::IfThenElse(hn::RebindMask(df, is_nan), nan, Widen<3>(codes, 120));
    } else if constexpr (kType == DType::f8_e4m3fnuz) {
      return hn::IfThenElse(hn::RebindMask(df, hn::Eq(codes, hn::Set(du, 0x80U))), nan, Widen<3>(codes, 119));
    } else {  // e5m2 alone has infinities: exponent 31 becomes 255
      const auto magnitude = hn::And(codes, hn::Set(du, 0x7fU));
      const auto is_special =
          hn::Gt(hn::BitCast(hn::RebindToSigned<Floats>(), magnitude), hn::Set(hn::RebindToSigned<Floats>(), 0x7b));
      const auto special = hn::Or(hn::ShiftLeft<21>(magnitude), hn::Set(du, 0x7f800000U));
      const auto sign = hn::ShiftLeft<24>(hn::And(codes, hn::Set(du, 0x80U)));
      return hn::IfThenElse(hn::RebindMask(df, is_special), hn::BitCast(df, hn::Or(special, sign)),
                            Widen<2>(codes, 112));
    }
  }
}

template <DType kType>
class Row {
 public:
  Row(const QTensor& w, DType)
      : codes_(reinterpret_cast<const std::uint8_t*>(w.part[0].data())),
        scales_(w.part[1].data()),
        cols_(w.cols),
        scale_type_(w.part[1].dtype()) {}

  HWY_INLINE void Factors(std::int64_t row, std::int64_t k0, std::int64_t count, float* HWY_RESTRICT out) const {
    const Floats df;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
    const std::uint8_t* from = Data(row, k0);
    std::int64_t k = 0;
    for (; k + lanes <= count; k += lanes) hn::Store(LoadCodes<kType>(from + k), df, out + k);
    if (k < count) {
      std::uint8_t rest[16] = {};
      std::copy_n(from + k, count - k, rest);
      hn::Store(LoadCodes<kType>(rest), df, out + k);
      std::fill(out + count, out + k + lanes, 0.0F);  // code 0 is not the value 0 in every format
      k += lanes;
    }
    std::fill(out + k, out + padded(count), 0.0F);
  }

  const std::uint8_t* Data(std::int64_t row, std::int64_t k0) const { return codes_ + row * cols_ + k0; }
  HWY_INLINE std::int64_t Dots(std::int64_t row, const float* x, float* acc) const {
    const std::uint8_t* from = Data(row, 0);
    return nibble::HWY_NAMESPACE::DotsOf(cols_, x, acc, [&](int r, std::int64_t k) HWY_ATTR {
      // the same place in the next block of rows
      if (k % 64 == 0) hwy::Prefetch(from + r * cols_ + k + kRowBlock * cols_);
      return LoadCodes<kType>(from + r * cols_ + k);
    });
  }

  float Scale(std::int64_t row) const { return load_as_f32(scale_type_, scales_, row); }

 private:
  const std::uint8_t* codes_;
  const std::byte* scales_;
  std::int64_t cols_;
  DType scale_type_;
};

/// Calls f(std::integral_constant<DType, dtype>) for the code type of `w`.
template <class F>
HWY_INLINE void WithType(const QTensor& w, F&& f) {
  switch (w.part[0].dtype()) {
    case DType::f8_e4m3fn: return f(std::integral_constant<DType, DType::f8_e4m3fn>());
    case DType::f8_e4m3fnuz: return f(std::integral_constant<DType, DType::f8_e4m3fnuz>());
    case DType::f8_e5m2: return f(std::integral_constant<DType, DType::f8_e5m2>());
    default: return f(std::integral_constant<DType, DType::i8>());
  }
}

void MatMul(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  WithType(*job.w,
           [&](auto type) HWY_ATTR { nibble::HWY_NAMESPACE::MatMulRows<Row<decltype(type)::value>>(job, row0, row1); });
}

void Factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  WithType(w, [&](auto type) HWY_ATTR { Row<decltype(type)::value>(w, compute).Factors(row, k0, count, out); });
}

/// row[k] = round(dtype, scale * row[k]).
void ScaleRow(DType dtype, float scale, std::int64_t count, float* HWY_RESTRICT row) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const auto factor = hn::Set(df, scale);
  std::int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    hn::StoreU(nibble::HWY_NAMESPACE::RoundTo(df, dtype, hn::Mul(hn::LoadU(df, row + k), factor)), df, row + k);
  }
  for (; k < count; ++k) row[k] = round_to(dtype, scale * row[k]);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::rows8
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::rows8 {
namespace {
HWY_EXPORT(MatMul);
HWY_EXPORT(Factors);
HWY_EXPORT(ScaleRow);

void matmul_rows(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  HWY_DYNAMIC_DISPATCH(MatMul)(job, row0, row1);
}
void factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(Factors)(w, compute, row, k0, count, out);
}

float row_scale(const QTensor& w, std::int64_t row) { return w.part[1].at(row); }

void values(const QTensor& w, std::int64_t row, float* out) {
  alignas(64) float chunk[kChunk];
  for (std::int64_t k0 = 0; k0 < w.cols; k0 += kChunk) {
    const std::int64_t count = std::min(kChunk, w.cols - k0);
    HWY_DYNAMIC_DISPATCH(Factors)(w, DType::f32, row, k0, count, chunk);
    std::copy_n(chunk, count, out + k0);
  }
  HWY_DYNAMIC_DISPATCH(ScaleRow)(w.dtype, row_scale(w, row), w.cols, out);
}

void matmul(const QTensor& w, const MatArgs& args, Exec& exec) {
  if (is_llm_int8(w)) return llm_int8_matmul(w, args, exec, kCpuSteps);
  cpu_matmul(cpu_rows(), best_isa(), w, args, exec);
}
void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  if (is_llm_int8(w)) return llm_int8_decode(w, row0, rows, out, exec);
  cpu_decode(cpu_rows(), w, row0, rows, out, exec);
}
}  // namespace

CpuRows cpu_rows() { return {&matmul_rows, &factors, &row_scale, &values}; }
const Kernels kCpu{&matmul, &decode};

}  // namespace nibble::rows8
#endif
