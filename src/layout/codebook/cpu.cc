// Sums of codebook vectors on the CPU: one codebook vector, or a part of it, is one SIMD vector.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/codebook/cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "layout/codebook/codebook.h"
#include "layout/codebook/codes.h"
#include "layout/codebook/kernels.h"
#include "layout/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::codebook {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// At most 8 lanes: the usual input group.
using Eight = hn::CappedTag<float, 8>;

/// As many elements as the vector has lanes, from any address.
template <DType kType>
HWY_INLINE hn::Vec<Eight> LoadAs(const std::byte* from) {
  const Eight df;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(from);
  if constexpr (kType == DType::f32) {
    return hn::BitCast(df, hn::LoadU(hn::Repartition<std::uint8_t, Eight>(), bytes));
  } else {
    const hn::Rebind<std::uint16_t, Eight> du16;
    const auto bits = hn::BitCast(du16, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du16)>(), bytes));
    if constexpr (kType == DType::f16) {
      return hn::PromoteTo(df, hn::BitCast(hn::Rebind<hwy::float16_t, Eight>(), bits));
    } else {
      return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<Eight>(), bits)));
    }
  }
}

template <class Code, DType kType>
class Row {
 public:
  Row(const QTensor& w, DType compute)
      : codes_(w.part[0].data()),
        books_(w.part[1].data()),
        scales_(w.part[2].data()),
        scale_type_(w.part[2].dtype()),
        round_to_(compute),
        shape_(shape_of(w)),
        groups_(w.cols / shape_.in_group) {}

  HWY_INLINE void Factors(std::int64_t row, std::int64_t k0, std::int64_t count, float* HWY_RESTRICT out) const {
    const std::int64_t o = row / shape_.out_group, a = row % shape_.out_group;
    const float scale = load_as_f32(scale_type_, scales_, o);
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(Eight()));
    const bool whole = shape_.in_group % lanes == 0 && kChunk % shape_.in_group == 0;
    std::int64_t k = 0;
    for (; whole && k < count; k += shape_.in_group) Group(o, a, (k0 + k) / shape_.in_group, scale, out + k);
    for (; k < count; ++k) out[k] = One(o, a, k0 + k, scale);
    std::fill(out + count, out + padded(count), 0.0F);
  }

  float Scale(std::int64_t) const { return 1; }

 private:
  /// First element of row `a` of the vector that code `k` of group (o, j) names.
  HWY_INLINE std::int64_t Entry(std::int64_t o, std::int64_t a, std::int64_t j, std::int64_t k) const {
    const std::int64_t code = load_code<Code>(codes_, (o * groups_ + j) * shape_.codebooks + k) & (shape_.entries - 1);
    return ((k * shape_.entries + code) * shape_.out_group + a) * shape_.in_group;
  }

  HWY_INLINE void Group(std::int64_t o, std::int64_t a, std::int64_t j, float scale, float* HWY_RESTRICT out) const {
    const Eight df;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
    constexpr std::int64_t kSize = kType == DType::f32 ? 4 : 2;
    for (std::int64_t b = 0; b < shape_.in_group; b += lanes) {
      auto sum = hn::Zero(df);
      for (std::int64_t k = 0; k < shape_.codebooks; ++k) {
        sum = hn::Add(sum, LoadAs<kType>(books_ + (Entry(o, a, j, k) + b) * kSize));
      }
      hn::StoreU(nibble::HWY_NAMESPACE::RoundTo(df, round_to_, hn::Mul(sum, hn::Set(df, scale))), df, out + b);
    }
  }

  /// Input `column`, for groups that no vector fits.
  float One(std::int64_t o, std::int64_t a, std::int64_t column, float scale) const {
    const std::int64_t j = column / shape_.in_group, b = column % shape_.in_group;
    float sum = 0;
    for (std::int64_t k = 0; k < shape_.codebooks; ++k) sum += load_as_f32(kType, books_, Entry(o, a, j, k) + b);
    return round_to(round_to_, sum * scale);
  }

  const std::byte *codes_, *books_, *scales_;
  DType scale_type_, round_to_;
  Shape4 shape_;
  std::int64_t groups_;
};

/// Calls f(a Row of the types of `w`).
template <class F>
HWY_INLINE void WithRow(const QTensor& w, F&& f) {
  with_code_type(w.part[0].dtype(), [&](auto code) HWY_ATTR {
    using Code = decltype(code);
    switch (w.part[1].dtype()) {
      case DType::f16: return f(static_cast<Row<Code, DType::f16>*>(nullptr));
      case DType::bf16: return f(static_cast<Row<Code, DType::bf16>*>(nullptr));
      default: return f(static_cast<Row<Code, DType::f32>*>(nullptr));
    }
  });
}

void MatMul(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  WithRow(*job.w, [&](auto* type) HWY_ATTR {
    nibble::HWY_NAMESPACE::MatMulRows<std::remove_pointer_t<decltype(type)>>(job, row0, row1);
  });
}

void Factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  WithRow(w,
          [&](auto* type) HWY_ATTR { std::remove_pointer_t<decltype(type)>(w, compute).Factors(row, k0, count, out); });
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::codebook
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::codebook {
namespace {
HWY_EXPORT(MatMul);
HWY_EXPORT(Factors);

void matmul_rows(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  HWY_DYNAMIC_DISPATCH(MatMul)(job, row0, row1);
}

void factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(Factors)(w, compute, row, k0, count, out);
}

void values(const QTensor& w, std::int64_t row, float* out) {
  alignas(64) float chunk[kChunk];
  for (std::int64_t k0 = 0; k0 < w.cols; k0 += kChunk) {
    const std::int64_t count = std::min(kChunk, w.cols - k0);
    HWY_DYNAMIC_DISPATCH(Factors)(w, w.dtype, row, k0, count, chunk);
    std::copy_n(chunk, count, out + k0);
  }
}

void matmul(const QTensor& w, const MatArgs& args, Exec& exec) { cpu_matmul(cpu_rows(), best_isa(), w, args, exec); }
void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  cpu_decode(cpu_rows(), w, row0, rows, out, exec);
}

}  // namespace

CpuRows cpu_rows() {
  return {&matmul_rows, &factors, [](const QTensor&, std::int64_t) { return 1.0F; }, &values};
}
const Kernels kCpu{&matmul, &decode};

}  // namespace nibble::codebook
#endif
