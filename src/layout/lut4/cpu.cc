// 4-bit table codes on the CPU: the table lies in registers, a block's scale multiplies what it gives.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/lut4/cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>

#include "layout/lut4/kernels.h"
#include "layout/lut4/lut4.h"
#include "layout/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::lut4 {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using nibble::HWY_NAMESPACE::Floats;
using V = hn::Vec<Floats>;
using Ints = hn::Vec<hn::RebindToSigned<Floats>>;

/// 16 floats, looked up by the low 4 bits of each lane.
class Table {
 public:
  explicit Table(const std::byte* values) {
    for (std::int64_t i = 0; i < 16; ++i) memory_[i] = load_as_f32(DType::f32, values, i);
  }

#if HWY_TARGET == HWY_AVX3
  HWY_INLINE V At(Ints index) const {
    const Floats df;
    return hn::TableLookupLanes(hn::Load(df, memory_), hn::Indices512<float>{index.raw});
  }
#else
  HWY_INLINE V At(Ints index) const { return hn::GatherIndex(Floats(), memory_, index); }
#endif
  float operator[](unsigned index) const { return memory_[index]; }

 private:
  alignas(64) float memory_[16];
};

class Row {
 public:
  Row(const QTensor& w, DType compute)
      : codes_(reinterpret_cast<const std::uint8_t*>(w.part[0].data())),
        scales_(w),
        table_(w.part[2].data()),
        cols_(w.cols),
        block_(w.group),
        round_to_(compute) {}

  HWY_INLINE void Factors(std::int64_t row, std::int64_t k0, std::int64_t count, float* HWY_RESTRICT out) const {
    std::int64_t i = row * cols_ + k0;
    const std::int64_t end = i + count;
    float* to = out;
    while (i < end) {
      const std::int64_t block = i / block_, stop = std::min(end, (block + 1) * block_);
      to = Segment(i, stop, scales_(block), to);
      i = stop;
    }
    std::fill(out + count, out + padded(count), 0.0F);
  }

  float Scale(std::int64_t) const { return 1; }

 private:
  HWY_INLINE float One(std::int64_t i, float scale) const {
    const unsigned pair = codes_[i / 2];
    return round_to(round_to_, table_[i % 2 == 0 ? pair >> 4 : pair & 15] * scale);
  }

  /// Weights [i, stop) of one block; gives the end of the output.
  HWY_INLINE float* Segment(std::int64_t i, std::int64_t stop, float scale, float* HWY_RESTRICT out) const {
    const Floats df;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
    const auto factor = hn::Set(df, scale);
    if (i % 2 != 0) *out++ = One(i++, scale);
    for (; i + lanes <= stop; i += lanes, out += lanes) {
      const V value = hn::Mul(table_.At(Indices(codes_ + i / 2)), factor);
      hn::StoreU(nibble::HWY_NAMESPACE::RoundTo(df, round_to_, value), df, out);
    }
    for (; i < stop; ++i) *out++ = One(i, scale);
    return out;
  }

  /// As many codes as a vector has lanes, from half as many bytes: the high nibble comes first.
  static HWY_INLINE Ints Indices(const std::uint8_t* from) {
    const hn::Rebind<std::uint8_t, Floats> du8;
    const hn::Half<decltype(du8)> half;
    const hn::Repartition<std::uint16_t, decltype(du8)> du16;
    const auto pairs = hn::PromoteTo(du16, hn::LoadU(half, from));
    const auto split = hn::Or(hn::ShiftRight<4>(pairs), hn::ShiftLeft<8>(hn::And(pairs, hn::Set(du16, 15))));
    return hn::PromoteTo(hn::RebindToSigned<Floats>(), hn::BitCast(du8, split));
  }

  const std::uint8_t* codes_;
  Scales scales_;
  Table table_;
  std::int64_t cols_, block_;
  DType round_to_;
};

void MatMul(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  nibble::HWY_NAMESPACE::MatMulRows<Row>(job, row0, row1);
}

void Factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  Row(w, compute).Factors(row, k0, count, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::lut4
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::lut4 {
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

}  // namespace nibble::lut4
#endif
