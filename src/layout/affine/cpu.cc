// Integer codes with group scales on the CPU. A group of a row has at most 2^bits values: for 4 and 2 bits they are
// computed once, with the exact roundings of value_of, and looked up in a register; 8 bits are computed in whole
// vectors, other widths and odd groups code by code.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layout/affine/cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <bit>
#include <cstring>

#include "layout/affine/affine.h"
#include "layout/affine/codes.h"
#include "layout/affine/kernels.h"
#include "layout/affine/order.h"
#include "layout/matmul-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::affine {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using nibble::HWY_NAMESPACE::Floats;
using nibble::HWY_NAMESPACE::RoundTo;
using V = hn::Vec<Floats>;
using Words = hn::Vec<hn::RebindToUnsigned<Floats>>;

/// The lowest `bits` bits of each word index a table of 2^bits floats that fills (or repeats in) 16 lanes.
class Table {
 public:
#if HWY_TARGET == HWY_AVX3
  explicit HWY_INLINE Table(V values) : values_(values) {}
  template <int kBits>
  HWY_INLINE V At(Words words) const {  // the permutation ignores higher bits, so nothing need be masked
    return hn::TableLookupLanes(values_, hn::Indices512<float>{words.raw});
  }

 private:
  V values_;
#else
  explicit HWY_INLINE Table(const float* values) : values_(values) {}
  template <int kBits>
  HWY_INLINE V At(Words words) const {
    const hn::RebindToUnsigned<Floats> du;
    const auto index = hn::And(words, hn::Set(du, (1U << kBits) - 1));
    return hn::GatherIndex(Floats(), values_, hn::BitCast(hn::RebindToSigned<Floats>(), index));
  }

 private:
  const float* values_;
#endif
};

class Row {
 public:
  Row(const QTensor& w, DType compute)
      : codes_(reinterpret_cast<const std::uint8_t*>(w.part[0].data())),
        scales_(w.part[1].data()),
        offsets_(w.part[2].data()),
        cols_(w.cols),
        group_(w.group),
        groups_(groups_of(w.cols, w.group)),
        row_bytes_(row_bytes(w.cols, w.bits)),
        bits_(w.bits),
        kind_(offset_kind(w)),
        dtype_(w.dtype),
        scale_dtype_(w.part[1].dtype()),
        offset_dtype_(w.part[2].dtype()),
        round_to_(compute == w.dtype ? DType::f32 : compute) {}

  HWY_INLINE void Factors(std::int64_t row, std::int64_t k0, std::int64_t count, float* HWY_RESTRICT out) const {
    const std::uint8_t* data = Data(row, k0);
    std::int64_t k = 0;
    if (group_ >= cols_ || group_ % 32 == 0) {
      if (bits_ == 4) k = Tables<4>(row, k0, count, data, out);
      if (bits_ == 2) k = Tables<2>(row, k0, count, data, out);
      if (bits_ == 8) k = Bytes(row, k0, count, data, out);
    }
    for (; k < count; k += kBlock) OneBlock(row, k0 + k, std::min(kBlock, count - k), data + k / 8 * bits_, out + k);
    std::fill(out + count, out + padded(count), 0.0F);
  }

  const std::uint8_t* Data(std::int64_t row, std::int64_t k0) const {
    return codes_ + row * row_bytes_ + k0 / 8 * bits_;
  }
  float Scale(std::int64_t) const { return 1; }

  HWY_INLINE std::int64_t Dots(std::int64_t row, const float* HWY_RESTRICT x, float* HWY_RESTRICT acc) const {
#if HWY_TARGET == HWY_AVX3
    const bool whole = group_ >= cols_ || group_ % kBlock == 0;
    if (bits_ == 4 && whole && Plain()) {
      return Dots4<8>(row, x, acc, [&](V codes, std::int64_t index) HWY_ATTR { return PlainValues(codes, index); });
    }
    if (bits_ == 4 && whole && dtype_ == DType::bf16 && round_to_ == DType::f32 && Modest(row)) {
      if (kind_ == Offset::shift) {
        return Dots4<8>(row, x, acc, [&](V codes, std::int64_t index) HWY_ATTR {
          return ModestValues<Offset::shift>(codes, index);
        });
      }
      return Dots4<8>(row, x, acc, [&](V codes, std::int64_t index) HWY_ATTR {
        return ModestValues<Offset::zero_point>(codes, index);
      });
    }
    const auto any = [&](V codes, std::int64_t index) HWY_ATTR { return AnyValues(codes, index); };
    if (bits_ == 4 && (whole || group_ % 64 == 0)) return Dots4<4>(row, x, acc, any);
    if (bits_ == 4 && group_ % 32 == 0) return Dots4<2>(row, x, acc, any);
    if (bits_ == 8 && whole && Plain()) {
      return Dots8<4>(row, x, acc, [&](V codes, std::int64_t index) HWY_ATTR { return PlainValues(codes, index); });
    }
    if (bits_ == 8 && whole) return Dots8<4>(row, x, acc, any);
    if (bits_ == 8 && group_ % 32 == 0) return Dots8<1>(row, x, acc, any);
#endif
    (void)row, (void)x, (void)acc;
    return 0;
  }

 private:
  static HWY_INLINE float Scalar(DType dtype, const std::byte* from, std::int64_t index) {
    if (dtype == DType::f32) return load_as_f32(dtype, from, index);
    std::uint16_t bits;
    std::memcpy(&bits, from + 2 * index, sizeof bits);
    if (dtype == DType::bf16) return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    const hn::CappedTag<float, 4> df;
    const hn::Rebind<hwy::float16_t, decltype(df)> half;
    return hn::GetLane(hn::PromoteTo(df, hn::BitCast(half, hn::Set(hn::RebindToUnsigned<decltype(half)>(), bits))));
  }
  HWY_INLINE float ScaleOf(std::int64_t index) const { return Scalar(scale_dtype_, scales_, index); }
  HWY_INLINE float OffsetOf(std::int64_t index) const { return Scalar(offset_dtype_, offsets_, index); }

  HWY_INLINE V Round(V v) const {
    const Floats df;
    return dtype_ == DType::bf16 ? nibble::HWY_NAMESPACE::RoundBf16Finite(df, v) : RoundTo(df, dtype_, v);
  }

  /// value_of, for a vector of codes of one group.
  HWY_INLINE V Values(V codes, V scale, V offset) const {
    const V value = kind_ == Offset::shift ? Round(hn::Sub(Round(hn::Mul(scale, codes)), offset))
                                           : Round(hn::Mul(scale, hn::Sub(codes, offset)));
    return round_to_ == DType::f32 ? value : RoundTo(Floats(), round_to_, value);
  }

#if HWY_TARGET == HWY_AVX3
  template <int kBits>
  HWY_INLINE Table MakeTable(std::int64_t index, float*) const {
    const Floats df;
    const auto lane =
        hn::And(hn::Iota(hn::RebindToSigned<Floats>(), 0), hn::Set(hn::RebindToSigned<Floats>(), (1 << kBits) - 1));
    return Table(Values(hn::ConvertTo(df, lane), hn::Set(df, ScaleOf(index)), hn::Set(df, OffsetOf(index))));
  }
#else
  template <int kBits>
  HWY_INLINE Table MakeTable(std::int64_t index, float* memory) const {
    const Floats df;
    const V scale = hn::Set(df, ScaleOf(index)), offset = hn::Set(df, OffsetOf(index));
    for (int q = 0; q < 1 << kBits; q += static_cast<int>(hn::Lanes(df))) {
      hn::Store(Values(hn::Iota(df, static_cast<float>(q)), scale, offset), df, memory + q);
    }
    return Table(memory);
  }
#endif

#if HWY_TARGET == HWY_AVX3
  /// bf16 element `index` in all lanes.
  static HWY_INLINE V Bf16All(const std::byte* from, std::int64_t index) {
    std::uint16_t bits;
    std::memcpy(&bits, from + 2 * index, sizeof bits);
    return hn::BitCast(Floats(), hn::Set(hn::RebindToUnsigned<Floats>(), static_cast<std::uint32_t>(bits) << 16));
  }

  /// Rounding to bf16 in three operations: adding and taking off 1.5 * 2^16 times the value's power of two. For |v| <
  /// 2^110.
  static HWY_INLINE V RoundModest(V v) {
    const Floats df;
    const auto power = hn::And(v, hn::BitCast(df, hn::Set(hn::RebindToUnsigned<Floats>(), 0x7f800000U)));
    const V big = hn::Set(df, 98304.0F);
    return hn::NegMulAdd(power, big, hn::MulAdd(power, big, v));
  }

  /// Whether all scales and offsets of a block of rows are below 2^100, and so 15 times them is modest.
  HWY_INLINE bool Modest(std::int64_t row) const {
    std::uint32_t largest = 0;
    for (const std::byte* from : {scales_ + 2 * row * groups_, offsets_ + 2 * row * groups_}) {
      for (std::int64_t i = 0; i < kRowBlock * groups_; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, from + 2 * i, sizeof bits);
        largest = std::max<std::uint32_t>(largest, bits & 0x7fffU);
      }
    }
    return largest < (127U + 100U) << 7;
  }

  /// The values of a modest bf16 group, with the roundings of value_of.
  template <Offset kKind>
  HWY_INLINE V ModestValues(V codes, std::int64_t index) const {
    const V scale = Bf16All(scales_, index), offset = Bf16All(offsets_, index);
    if constexpr (kKind == Offset::shift) return RoundModest(hn::Sub(RoundModest(hn::Mul(scale, codes)), offset));
    return RoundModest(hn::Mul(scale, hn::Sub(codes, offset)));
  }

  /// Values in f32 of f16 scales and zero points, as GPTQ and AWQ have them: no rounding beyond f32's.
  HWY_INLINE bool Plain() const {
    return kind_ == Offset::zero_point && dtype_ == DType::f32 && round_to_ == DType::f32 &&
           scale_dtype_ == DType::f16 && offset_dtype_ == DType::f16;
  }
  static HWY_INLINE V F16All(const std::byte* from, std::int64_t index) {
    std::uint16_t bits;
    std::memcpy(&bits, from + 2 * index, sizeof bits);
    const hn::Rebind<hwy::float16_t, Floats> half;
    return hn::PromoteTo(Floats(), hn::BitCast(half, hn::Set(hn::RebindToUnsigned<decltype(half)>(), bits)));
  }
  HWY_INLINE V PlainValues(V codes, std::int64_t index) const {
    return hn::Mul(F16All(scales_, index), hn::Sub(codes, F16All(offsets_, index)));
  }

  HWY_INLINE V AnyValues(V codes, std::int64_t index) const {
    return Values(codes, hn::Set(Floats(), ScaleOf(index)), hn::Set(Floats(), OffsetOf(index)));
  }

  /// The groups of a block's `kParts` parts of equal size, block by block.
  template <int kParts>
  struct Groups {
    explicit Groups(std::int64_t group) : size(group), left(group) {}
    HWY_INLINE void Next() {
      NIBBLE_UNROLL(kParts) for (int part = 0; part < kParts; ++part) {
        at[part] = index;
        left -= kBlock / kParts;
        if (left > 0) continue;
        ++index;
        left = size;
      }
    }
    std::int64_t size, left, index = 0;
    std::int64_t at[kParts] = {};
  };

  /// One token, 4 bits: weights go from the table to the sum without leaving registers. `kFields` fields of a block's
  /// words share a group, so groups are multiples of 16 * kFields inputs or whole rows. values(codes, index) gives
  /// those of group `index`.
  template <int kFields, class F>
  HWY_NOINLINE std::int64_t Dots4(std::int64_t row, const float* HWY_RESTRICT x, float* HWY_RESTRICT acc,
                                  F&& values) const {
    const Floats df;
    const hn::RebindToUnsigned<Floats> du;
    const V codes = hn::Iota(df, 0.0F);
    const std::int64_t end = cols_ / kBlock * kBlock;
    NIBBLE_UNROLL(1) for (std::int64_t half = 0; half < kRowBlock; half += 4) {
      const std::uint8_t* data = Data(row + half, 0);
      V sums[4];
      NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) sums[r] = hn::Load(df, acc + (half + r) * 16);
      Groups<8 / kFields> groups(group_);
      for (std::int64_t k = 0; k < end; k += kBlock, data += 64) {
        groups.Next();
        NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) {
          const std::uint8_t* at = data + r * row_bytes_;
          hwy::Prefetch(at + kRowBlock * row_bytes_);
          auto words = hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du)>(), at));
          NIBBLE_UNROLL(8 / kFields) for (int part = 0; part < 8 / kFields; ++part) {
            const V table = values(codes, (row + half + r) * groups_ + groups.at[part]);
            NIBBLE_UNROLL(kFields) for (int f = 0; f < kFields; ++f) {
              const V in = hn::Load(df, x + k + 16 * (part * kFields + f));
              sums[r] = hn::MulAdd(hn::TableLookupLanes(table, hn::Indices512<float>{words.raw}), in, sums[r]);
              words = hn::ShiftRight<4>(words);
            }
          }
        }
      }
      NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) hn::Store(sums[r], df, acc + (half + r) * 16);
    }
    return end;
  }

  /// The same for 8 bits: `kFields` fields, of 32 codes each, share a group.
  template <int kFields, class F>
  HWY_NOINLINE std::int64_t Dots8(std::int64_t row, const float* HWY_RESTRICT x, float* HWY_RESTRICT acc,
                                  F&& values) const {
    const Floats df;
    const hn::RebindToUnsigned<Floats> du;
    const hn::RebindToSigned<Floats> di;
    const auto low = hn::Set(du, 255);
    const std::int64_t end = cols_ / kBlock * kBlock;
    NIBBLE_UNROLL(1) for (std::int64_t half = 0; half < kRowBlock; half += 4) {
      const std::uint8_t* data = Data(row + half, 0);
      V sums[4];
      NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) sums[r] = hn::Load(df, acc + (half + r) * 16);
      Groups<4 / kFields> groups(group_);
      for (std::int64_t k = 0; k < end; k += kBlock, data += kBlock) {
        groups.Next();
        NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) {
          const std::uint8_t* at = data + r * row_bytes_;
          hwy::Prefetch(at + kRowBlock * row_bytes_);
          hwy::Prefetch(at + kRowBlock * row_bytes_ + 64);
          auto first = hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du)>(), at));
          auto second = hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du)>(), at + 64));
          NIBBLE_UNROLL(4) for (int f = 0; f < 4; ++f) {
            const std::int64_t index = (row + half + r) * groups_ + groups.at[f / kFields];
            const V one = hn::ConvertTo(df, hn::BitCast(di, hn::And(first, low)));
            const V two = hn::ConvertTo(df, hn::BitCast(di, hn::And(second, low)));
            sums[r] = hn::MulAdd(values(one, index), hn::Load(df, x + k + 32 * f), sums[r]);
            sums[r] = hn::MulAdd(values(two, index), hn::Load(df, x + k + 32 * f + 16), sums[r]);
            first = hn::ShiftRight<8>(first);
            second = hn::ShiftRight<8>(second);
          }
        }
      }
      NIBBLE_UNROLL(4) for (int r = 0; r < 4; ++r) hn::Store(sums[r], df, acc + (half + r) * 16);
    }
    return end;
  }
#endif

  /// Whole blocks by tables; gives the number of codes done.
  template <int kBits>
  HWY_INLINE std::int64_t Tables(std::int64_t row, std::int64_t k0, std::int64_t count, const std::uint8_t* data,
                                 float* HWY_RESTRICT out) const {
    alignas(64) float memory[16];
    const bool whole = group_ >= cols_ || group_ % kBlock == 0;
    std::int64_t k = 0;
    for (; k + kBlock <= count; k += kBlock) {
      const std::uint8_t* words = data + k / 8 * kBits;
      if (whole) {
        Fields<kBits>(words, 0, 32 / kBits, MakeTable<kBits>(row * groups_ + (k0 + k) / group_, memory), out + k);
        continue;
      }
      for (int unit = 0; unit < 4; ++unit) {  // 32 codes: 2 or 4 fields of a block's words
        const std::int64_t group = row * groups_ + (k0 + k + 32 * unit) / group_;
        Fields<kBits>(words, unit * (8 / kBits), (unit + 1) * (8 / kBits), MakeTable<kBits>(group, memory), out + k);
      }
    }
    return k;
  }

  /// Whole blocks of 8-bit codes; gives the number of codes done.
  HWY_INLINE std::int64_t Bytes(std::int64_t row, std::int64_t k0, std::int64_t count, const std::uint8_t* data,
                                float* HWY_RESTRICT out) const {
    const Floats df;
    const hn::RebindToUnsigned<Floats> du;
    const hn::RebindToSigned<Floats> di;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
    std::int64_t k = 0;
    for (; k + kBlock <= count; k += kBlock) {
      for (int field = 0; field < 4; ++field) {
        const std::int64_t index = row * groups_ + (group_ >= cols_ ? 0 : (k0 + k + 32 * field) / group_);
        const V scale = hn::Set(df, ScaleOf(index)), offset = hn::Set(df, OffsetOf(index));
        for (std::int64_t j = 0; j < 32; j += lanes) {
          const auto words =
              hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du)>(), data + k + 4 * j));
          const auto codes = hn::And(hn::ShiftRightSame(words, 8 * field), hn::Set(du, 255));
          hn::Store(Values(hn::ConvertTo(df, hn::BitCast(di, codes)), scale, offset), df, out + k + 32 * field + j);
        }
      }
    }
    return k;
  }

  /// Fields [first, last) of all words of a block.
  template <int kBits>
  HWY_INLINE void Fields(const std::uint8_t* data, int first, int last, const Table& table,
                         float* HWY_RESTRICT out) const {
    using Few = hn::CappedTag<float, kBits == 2 && HWY_TARGET != HWY_AVX3 ? 8 : 16>;
    const Few df;
    const hn::RebindToUnsigned<Few> du;
    constexpr int kWords = 4 * kBits;
    const int lanes = static_cast<int>(hn::Lanes(df));
#if HWY_TARGET == HWY_AVX3
    if constexpr (kBits == 2) {  // 8 words fill half a vector: two fields at a time
      const hn::Half<decltype(du)> half;
      const auto eight = hn::LoadU(half, reinterpret_cast<const std::uint32_t*>(data));
      const auto sixteen = hn::Combine(du, eight, eight);
      const auto two = hn::ShiftLeft<1>(hn::ShiftRight<3>(hn::Iota(du, 0)));  // 0 in the lower half, 2 in the upper
      for (int field = first; field < last; field += 2) {
        const auto shifted = hn::Shr(sixteen, hn::Add(two, hn::Set(du, static_cast<std::uint32_t>(2 * field))));
        hn::Store(table.At<kBits>(shifted), df, out + field * kWords);
      }
      return;
    }
#endif
    for (int j = 0; j < kWords; j += lanes) {
      const auto words = hn::BitCast(du, hn::LoadU(hn::Repartition<std::uint8_t, decltype(du)>(), data + 4 * j));
      for (int field = first; field < last; ++field) {
        hn::Store(table.At<kBits>(hn::ShiftRightSame(words, field * kBits)), df, out + field * kWords + j);
      }
    }
  }

  /// One block of any width, tail and group.
  void OneBlock(std::int64_t row, std::int64_t k0, std::int64_t count, const std::uint8_t* data,
                float* HWY_RESTRICT out) const {
    alignas(64) std::uint8_t codes[kBlock];
    unpack_block(data, padded_cols(count), bits_, codes);
    const Floats df;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
    const hn::Rebind<std::uint8_t, Floats> du8;
    const hn::RebindToSigned<Floats> di;
    std::int64_t k = 0;
    while (k < count) {
      const std::int64_t group = (k0 + k) / group_, index = row * groups_ + group;
      const std::int64_t end = std::min(count, group_ >= cols_ ? cols_ - k0 : (group + 1) * group_ - k0);
      const float scale = ScaleOf(index), offset = OffsetOf(index);
      for (; k + lanes <= end; k += lanes) {
        const V q = hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(du8, codes + k)));
        hn::StoreU(Values(q, hn::Set(df, scale), hn::Set(df, offset)), df, out + k);
      }
      for (; k < end; ++k) out[k] = round_to(round_to_, value_of(dtype_, kind_, scale, offset, codes[k]));
    }
  }

  const std::uint8_t* codes_;
  const std::byte *scales_, *offsets_;
  std::int64_t cols_, group_, groups_, row_bytes_;
  std::int32_t bits_;
  Offset kind_;
  DType dtype_, scale_dtype_, offset_dtype_, round_to_;
};

void MatMul(const RowsJob& job, std::int64_t row0, std::int64_t row1) {
  nibble::HWY_NAMESPACE::MatMulRows<Row>(job, row0, row1);
}

void Factors(const QTensor& w, DType compute, std::int64_t row, std::int64_t k0, std::int64_t count, float* out) {
  Row(w, compute).Factors(row, k0, count, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::affine
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::affine {
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

void matmul(const QTensor& w, const MatArgs& args, Exec& exec) {
  in_stored_order(w, args, exec, [&](const MatArgs& ordered) { cpu_matmul(cpu_rows(), best_isa(), w, ordered, exec); });
}
void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  cpu_decode(cpu_rows(), w, row0, rows, out, exec);
  to_input_order(w, rows, out, exec);
}
}  // namespace

CpuRows cpu_rows() {
  return {&matmul_rows, &factors, [](const QTensor&, std::int64_t) { return 1.0F; }, &values};
}
const Kernels kCpu{&matmul, &decode};

}  // namespace nibble::affine
#endif
