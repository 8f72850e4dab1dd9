// Dense weights on the CPU.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/dense/cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "layout/dense/dense.h"
#include "layout/dense/kernels.h"
#include "layout/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::dense {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using nibble::HWY_NAMESPACE::Floats;

/// As many elements as a vector has lanes, from any address.
HWY_INLINE hn::Vec<Floats> LoadAs(DType dtype, const std::uint8_t* from) {
  const Floats df;
  if (dtype == DType::f32) return hn::BitCast(df, hn::LoadU(hn::Repartition<std::uint8_t, Floats>(), from));
  const hn::Rebind<std::uint16_t, Floats> du16;
  const auto bits = hn::BitCast(du16, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du16)>(), from));
  if (dtype == DType::f16) return hn::PromoteTo(df, hn::BitCast(hn::Rebind<hwy::float16_t, Floats>(), bits));
  const hn::RebindToUnsigned<Floats> du32;
  return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du32, bits)));
}

class Row {
 public:
  Row(const QTensor& w, DType compute)
      : data_(reinterpret_cast<const std::uint8_t*>(w.part[0].data())),
        cols_(w.cols),
        size_(static_cast<std::int64_t>(size_of(w.dtype))),
        dtype_(w.dtype),
        round_to_(compute == w.dtype ? DType::f32 : compute) {}

  void Factors(std::int64_t row, std::int64_t k0, std::int64_t count, float* HWY_RESTRICT out) const {
    const std::uint8_t* from = Data(row, k0);
    if (round_to_ != DType::f32) return Convert<true>(from, count, out);
    Convert<false>(from, count, out);
  }

  const std::uint8_t* Data(std::int64_t row, std::int64_t k0) const { return data_ + (row * cols_ + k0) * size_; }
  float Scale(std::int64_t) const { return 1; }

  HWY_INLINE std::int64_t Dots(std::int64_t row, const float* x, float* acc) const {
    if (round_to_ != DType::f32) return 0;
    if (dtype_ == DType::bf16) return DotsFrom<DType::bf16>(row, x, acc);
    if (dtype_ == DType::f16) return DotsFrom<DType::f16>(row, x, acc);
    return DotsFrom<DType::f32>(row, x, acc);
  }

 private:
  template <DType kType>
  HWY_INLINE std::int64_t DotsFrom(std::int64_t row, const float* x, float* acc) const {
    constexpr std::int64_t size = kType == DType::f32 ? 4 : 2;
    const std::uint8_t* from = Data(row, 0);
    const std::int64_t stride = cols_ * size;
    return nibble::HWY_NAMESPACE::DotsOf(cols_, x, acc, [&](int r, std::int64_t k) HWY_ATTR {
      // the same place in the next block of rows
      if (k * size % 64 == 0) hwy::Prefetch(from + r * stride + k * size + kRowBlock * stride);
      return LoadAs(kType, from + r * stride + k * size);
    });
  }

  template <bool kRound>
  HWY_INLINE void Convert(const std::uint8_t* from, std::int64_t count, float* HWY_RESTRICT out) const {
    if (dtype_ == DType::bf16) return ConvertFrom<kRound>(DType::bf16, from, count, out);
    if (dtype_ == DType::f16) return ConvertFrom<kRound>(DType::f16, from, count, out);
    ConvertFrom<kRound>(DType::f32, from, count, out);
  }

  template <bool kRound>
  HWY_INLINE void ConvertFrom(DType dtype, const std::uint8_t* from, std::int64_t count,
                              float* HWY_RESTRICT out) const {
    const Floats df;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
    const auto put = [&](std::int64_t k, const std::uint8_t* source) HWY_ATTR {
      auto v = LoadAs(dtype, source);
      if (kRound) v = nibble::HWY_NAMESPACE::RoundTo(df, round_to_, v);
      hn::Store(v, df, out + k);
    };
    std::int64_t k = 0;
    for (; k + lanes <= count; k += lanes) put(k, from + k * size_);
    if (k < count) {
      std::uint8_t rest[64] = {};
      std::copy_n(from + k * size_, (count - k) * size_, rest);
      put(k, rest);
      k += lanes;
    }
    std::fill(out + k, out + padded(count), 0.0F);
  }

  const std::uint8_t* data_;
  std::int64_t cols_, size_;
  DType dtype_, round_to_;
};

void MatMul(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  nibble::HWY_NAMESPACE::MatMulRows<Row>(job, row0, row1);
}

void Factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  Row(w, compute).Factors(row, k0, count, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::dense
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::dense {
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
  convert_to_f32(w.dtype, w.part[0].data() + row * w.cols * static_cast<std::int64_t>(size_of(w.dtype)), out, w.cols);
}

void matmul(const QTensor& w, const MatArgs& args, Exec& exec) { cpu_matmul(cpu_rows(), best_isa(), w, args, exec); }
void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  cpu_decode(cpu_rows(), w, row0, rows, out, exec);
}
/// The weights themselves, when they are bf16.
const std::byte* bf16_data(const QTensor& w, std::int64_t row, std::int64_t k0) {
  return w.dtype == DType::bf16 ? w.part[0].data() + (row * w.cols + k0) * 2 : nullptr;
}
}  // namespace

CpuRows cpu_rows() {
  return {&matmul_rows, &factors, [](const QTensor&, std::int64_t) { return 1.0F; }, &values, &bf16_data};
}
const Kernels kCpu{&matmul, &decode};

}  // namespace nibble::dense
#endif
