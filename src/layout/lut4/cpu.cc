// 4-bit table codes on the CPU: the table lies in registers, a block's scale multiplies what it gives.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/lut4/cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <bit>
#include <cstring>

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
  HWY_INLINE V All() const { return hn::Load(Floats(), memory_); }
  HWY_INLINE V At(Ints index) const { return hn::TableLookupLanes(All(), hn::Indices512<float>{index.raw}); }
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

  HWY_INLINE std::int64_t Dots(std::int64_t row, const float* HWY_RESTRICT x, float* HWY_RESTRICT acc) const {
#if HWY_TARGET == HWY_AVX3
    // Rows of whole units, none of which two scales share.
    if (cols_ % kUnit == 0 && block_ % kUnit == 0 && std::has_single_bit(static_cast<std::uint64_t>(block_))) {
      if (round_to_ == DType::f32) return DotsOfUnits(row, x, acc, [](V v) HWY_ATTR { return v; });
      return DotsOfUnits(row, x, acc,
                         [&](V v) HWY_ATTR { return nibble::HWY_NAMESPACE::RoundTo(Floats(), round_to_, v); });
    }
#endif
    (void)row, (void)x, (void)acc;
    return 0;
  }

 private:
  static constexpr std::int64_t kUnit = 64, kUnitsAtOnce = 32;

#if HWY_TARGET == HWY_AVX3
  /// One token: the 16 values of a unit's scale are computed and rounded once, and go from the table to the sum in
  /// registers.
  template <class F>
  HWY_NOINLINE std::int64_t DotsOfUnits(std::int64_t row, const float* HWY_RESTRICT x, float* HWY_RESTRICT acc,
                                        F&& round) const {
    const Floats df;
    const hn::RebindToUnsigned<Floats> du;
    const int shift = std::countr_zero(static_cast<std::uint64_t>(block_));
    const std::int64_t end = cols_ / 128 * 128, row_bytes = cols_ / 2;
    const V table = table_.All();
    NIBBLE_UNROLL(1) for (std::int64_t half = 0; half < kRowBlock; half += 4) {
      const std::int64_t first = (row + half) * cols_;
      const std::uint8_t* from = codes_ + first / 2;
      V sums[4];
      NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) sums[r] = hn::Load(df, acc + (half + r) * 16);
      float scales[4][kUnitsAtOnce];  // computed apart: calls in the loop would push its vectors to memory
      for (std::int64_t part = 0; part < end; part += kUnitsAtOnce * kUnit) {
        const std::int64_t stop = std::min(end, part + kUnitsAtOnce * kUnit);
        for (int r = 0; r < 4; ++r) {
          const std::int64_t i = first + r * cols_ + part;
          for (std::int64_t u = 0; u < (stop - part) / kUnit; ++u) scales[r][u] = scales_((i + u * kUnit) >> shift);
        }
        for (std::int64_t k = part; k < stop; k += kUnit, from += kUnit / 2) {
          NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) {
            const std::uint8_t* at = from + r * row_bytes;
            hwy::Prefetch(at + kRowBlock * row_bytes);
            const V values = round(hn::Mul(table, hn::Set(df, scales[r][(k - part) / kUnit])));
            NIBBLE_UNROLL(4) for (int v = 0; v < 4; ++v) {
              const V weight = hn::TableLookupLanes(values, hn::Indices512<float>{Spread(du, at + 8 * v).raw});
              sums[r] = hn::MulAdd(weight, hn::Load(df, x + k + 16 * v), sums[r]);
            }
          }
        }
      }
      NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) hn::Store(sums[r], df, acc + (half + r) * 16);
    }
    return end;
  }

  /// 16 codes from 8 bytes, in the low 4 bits of lanes whose other bits mean nothing: lane j has byte j / 2, shifted
  /// where j is even.
  template <class D>
  static HWY_INLINE hn::Vec<D> Spread(D du, const std::uint8_t* from) {
    alignas(64) static constexpr std::uint32_t kByte[16] = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7};
    alignas(64) static constexpr std::uint32_t kShift[16] = {4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0};
    std::uint64_t eight;
    std::memcpy(&eight, from, sizeof eight);
    const auto all =
        hn::BitCast(hn::Repartition<std::uint8_t, D>(), hn::Set(hn::Repartition<std::uint64_t, D>(), eight));
    const auto bytes = hn::TableLookupBytes(all, hn::BitCast(hn::Repartition<std::uint8_t, D>(), hn::Load(du, kByte)));
    return hn::Shr(hn::BitCast(du, bytes), hn::Load(du, kShift));
  }
#endif

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
