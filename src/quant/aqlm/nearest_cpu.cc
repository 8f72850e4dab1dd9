// Nearest words, vectorized over words: a vector holds one component of as many words as it has lanes.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/aqlm/nearest_cpu.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <array>
#include <limits>

#include "hwy/highway.h"
#include "quant/aqlm/nearest.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::aqlm {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using I = hn::RebindToSigned<F>;
using Floats = hn::Vec<F>;
using Ints = hn::Vec<I>;

constexpr float kWorst = std::numeric_limits<float>::max();
/// Words whose components stay in the first cache while several points are compared with them.
constexpr std::int64_t kTile = 1024;
/// Points whose best values are kept between two tiles; those that are compared at once.
constexpr std::int64_t kPoints = 64, kAtOnce = 4;
constexpr std::int64_t kMaxLanes = 64;

/// The best word seen in each lane.
struct Best {
  alignas(256) std::array<float, kMaxLanes> value;
  alignas(256) std::array<std::int32_t, kMaxLanes> first;  ///< of the vector it was in
};

/// Values of the words [e, e + lanes) for `kCount` points.
template <std::int64_t kCount, class Table>
HWY_INLINE void Values(const Table& t, const float* points, std::int64_t e, Floats (&sums)[kCount]) {
  const F df;
  const Floats half = hn::LoadU(df, t.half + e);
  for (std::int64_t p = 0; p < kCount; ++p) sums[p] = half;
  for (std::int64_t i = 0; i < t.dims(); ++i) {
    const Floats words = hn::LoadU(df, t.words + i * t.padded + e);
    for (std::int64_t p = 0; p < kCount; ++p) {
      sums[p] = hn::NegMulAdd(hn::Set(df, points[p * t.dims() + i]), words, sums[p]);
    }
  }
}

/// A table whose number of components the compiler knows; 0: it does not.
template <std::int64_t kDims>
struct Words {
  const float* words;
  const float* half;
  std::int64_t padded, any_dims;
  HWY_INLINE std::int64_t dims() const {
    if constexpr (kDims > 0) return kDims;
    return any_dims;
  }
};

template <std::int64_t kCount, class Table>
HWY_INLINE void Compare(const Table& t, const float* points, std::int64_t begin, std::int64_t end, Best* best) {
  const F df;
  const I di;
  Floats value[kCount], sums[kCount];
  Ints first[kCount];
  for (std::int64_t p = 0; p < kCount; ++p) {
    value[p] = hn::LoadU(df, best[p].value.data());
    first[p] = hn::LoadU(di, best[p].first.data());
  }
  for (std::int64_t e = begin; e < end; e += static_cast<std::int64_t>(hn::Lanes(df))) {
    Values<kCount>(t, points, e, sums);
    const Ints here = hn::Set(di, static_cast<std::int32_t>(e));
    for (std::int64_t p = 0; p < kCount; ++p) {
      const auto better = hn::Lt(sums[p], value[p]);
      value[p] = hn::IfThenElse(better, sums[p], value[p]);
      first[p] = hn::IfThenElse(hn::RebindMask(di, better), here, first[p]);
    }
  }
  for (std::int64_t p = 0; p < kCount; ++p) {
    hn::StoreU(value[p], df, best[p].value.data());
    hn::StoreU(first[p], di, best[p].first.data());
  }
}

/// The lowest value of all lanes, of equal ones that of the first word.
HWY_INLINE void Reduce(Floats values, Ints first, float& value, std::int32_t& index) {
  const F df;
  const I di;
  const Floats lowest = hn::MinOfLanes(df, values);
  const Ints words = hn::Add(first, hn::Iota(di, 0));
  const auto is_lowest = hn::RebindMask(di, hn::Eq(values, lowest));
  const Ints none = hn::Set(di, std::numeric_limits<std::int32_t>::max());
  value = hn::GetLane(lowest);
  index = hn::GetLane(hn::MinOfLanes(di, hn::IfThenElse(is_lowest, words, none)));
}

template <std::int64_t kDims>
HWY_INLINE void NearestOf(const Nearest& job) {
  const Words<kDims> t{job.table->words.data(), job.half, job.table->padded, job.table->dims};
  std::array<Best, kPoints> best;
  for (std::int64_t at = 0; at < job.count; at += kPoints) {
    const std::int64_t count = std::min(kPoints, job.count - at);
    for (std::int64_t p = 0; p < count; ++p) {
      hn::StoreU(hn::Set(F(), kWorst), F(), best[static_cast<std::size_t>(p)].value.data());
      hn::StoreU(hn::Zero(I()), I(), best[static_cast<std::size_t>(p)].first.data());
    }
    for (std::int64_t begin = 0; begin < t.padded; begin += kTile) {
      const std::int64_t end = std::min(begin + kTile, t.padded);
      const float* points = job.points + at * t.dims();
      std::int64_t p = 0;
      for (; p + kAtOnce <= count; p += kAtOnce) {
        Compare<kAtOnce>(t, points + p * t.dims(), begin, end, best.data() + p);
      }
      for (; p < count; ++p) Compare<1>(t, points + p * t.dims(), begin, end, best.data() + p);
    }
    for (std::int64_t p = 0; p < count; ++p) {
      const Best& b = best[static_cast<std::size_t>(p)];
      Reduce(hn::LoadU(F(), b.value.data()), hn::LoadU(I(), b.first.data()), job.value[at + p], job.index[at + p]);
    }
  }
}

void FindNearest(const Nearest& job) {
  switch (job.table->dims) {
    case 8: return NearestOf<8>(job);
    case 16: return NearestOf<16>(job);
    default: return NearestOf<0>(job);
  }
}

template <std::int64_t kDims>
HWY_INLINE void AllValuesOf(const Words<kDims>& t, const float* point, float* values) {
  const F df;
  for (std::int64_t e = 0; e < t.padded; e += static_cast<std::int64_t>(hn::Lanes(df))) {
    Floats sums[1];
    Values<1>(t, point, e, sums);
    hn::StoreU(sums[0], df, values + e);
  }
}

void AllValues(const WordTable& table, const float* half, const float* point, float* values) {
  switch (table.dims) {
    case 8: return AllValuesOf(Words<8>{table.words.data(), half, table.padded, 8}, point, values);
    case 16: return AllValuesOf(Words<16>{table.words.data(), half, table.padded, 16}, point, values);
    default: return AllValuesOf(Words<0>{table.words.data(), half, table.padded, table.dims}, point, values);
  }
}

void TakeLowest(float* values, std::int64_t padded, std::int64_t count, std::int32_t* index, float* value) {
  const F df;
  const I di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  for (std::int64_t n = 0; n < count; ++n) {
    Floats lowest = hn::Set(df, kWorst);
    Ints first = hn::Zero(di);
    for (std::int64_t e = 0; e < padded; e += lanes) {
      const Floats v = hn::LoadU(df, values + e);
      const auto better = hn::Lt(v, lowest);
      lowest = hn::IfThenElse(better, v, lowest);
      first = hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, static_cast<std::int32_t>(e)), first);
    }
    Reduce(lowest, first, value[n], index[n]);
    values[index[n]] = kWorst;
  }
}

void HalfNorms(const WordTable& table, const float* h, std::int64_t ldh, float* half) {
  const F df;
  const std::int64_t dims = table.dims;
  for (std::int64_t e = 0; e < table.padded; e += static_cast<std::int64_t>(hn::Lanes(df))) {
    Floats sum = hn::Zero(df);
    for (std::int64_t i = 0; i < dims; ++i) {
      const Floats own = hn::LoadU(df, table.words.data() + i * table.padded + e);
      // Half of the diagonal and what is below it: the matrix is symmetric.
      Floats inner = hn::Mul(hn::Set(df, 0.5F * h[i * ldh + i]), own);
      for (std::int64_t k = 0; k < i; ++k) {
        inner =
            hn::MulAdd(hn::Set(df, h[i * ldh + k]), hn::LoadU(df, table.words.data() + k * table.padded + e), inner);
      }
      sum = hn::MulAdd(inner, own, sum);
    }
    hn::StoreU(sum, df, half + e);
  }
  std::fill(half + table.entries, half + table.padded, kWorst);
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::aqlm
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::aqlm {
namespace {
HWY_EXPORT(FindNearest);
HWY_EXPORT(AllValues);
HWY_EXPORT(TakeLowest);
HWY_EXPORT(HalfNorms);

constexpr std::int64_t kWidest = 64;  ///< words of the widest vector that Highway may choose

}  // namespace

WordTable::WordTable(const float* from, std::int64_t entries_, std::int64_t dims_)
    : entries(entries_), dims(dims_), padded((entries_ + kWidest - 1) / kWidest * kWidest) {
  words.resize(static_cast<std::size_t>(dims * padded));
  for (std::int64_t e = 0; e < entries; ++e) {
    for (std::int64_t i = 0; i < dims; ++i) words[static_cast<std::size_t>(i * padded + e)] = from[e * dims + i];
  }
}

void half_norms(const WordTable& table, const float* h, std::int64_t ldh, float* half) {
  HWY_DYNAMIC_DISPATCH(HalfNorms)(table, h, ldh, half);
}

void nearest(const Nearest& job) { HWY_DYNAMIC_DISPATCH(FindNearest)(job); }

void all_values(const WordTable& table, const float* half, const float* point, float* values) {
  HWY_DYNAMIC_DISPATCH(AllValues)(table, half, point, values);
}

void take_lowest(float* values, std::int64_t padded, std::int64_t count, std::int32_t* index, float* value) {
  HWY_DYNAMIC_DISPATCH(TakeLowest)(values, padded, count, index, value);
}

}  // namespace nibble::aqlm
#endif
