// Softmax attention over paged keys and values. Few query rows (decoding): each kv head of a sequence is one task that
// reads its pages once for all heads of the group. Many (prefill): keys and values are first packed as f32 tiles, then
// blocks of query rows are tasks. A task's result depends on its own rows only, so neither the split nor the number of
// threads changes a bit.
#include "device/cpu/targets.h"
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/attention.cc"
#include "hwy/foreach_target.h"
// clang-format on
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "device/cpu/attention_tiles.h"
#include "device/cpu/ops.h"
#include "device/cpu/unroll.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::CappedTag<float, 16>;
using V = hn::Vec<Floats>;

/// head_dim elements as f32, zeros up to padded_dim.
HWY_INLINE void LoadRow(DType dtype, const std::byte* from, std::int64_t head_dim, float* HWY_RESTRICT to) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  std::int64_t d = 0;
  if (dtype == DType::bf16) {
    const hn::Rebind<std::uint16_t, Floats> du16;
    const hn::RebindToUnsigned<Floats> du32;
    for (; d + lanes <= head_dim; d += lanes) {
      const auto bits = hn::LoadU(du16, reinterpret_cast<const std::uint16_t*>(from) + d);
      hn::Store(hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du32, bits))), df, to + d);
    }
  } else if (dtype == DType::f32) {
    for (; d + lanes <= head_dim; d += lanes)
      hn::Store(hn::LoadU(df, reinterpret_cast<const float*>(from) + d), df, to + d);
  } else {
    const hn::Rebind<hwy::float16_t, Floats> df16;
    for (; d + lanes <= head_dim; d += lanes) {
      hn::Store(hn::PromoteTo(df, hn::LoadU(df16, reinterpret_cast<const hwy::float16_t*>(from) + d)), df, to + d);
    }
  }
  for (; d < head_dim; ++d) to[d] = load_as_f32(dtype, from, d);
  for (; d < padded_dim(head_dim); ++d) to[d] = 0;
}

/// Rows [first, first + 64) of a kv head as f32 [64, dim]; rows from kv_rows on are zero.
void LoadTile(const AttentionSeq& s, const AttentionArgs& a, std::span<const std::byte* const> pages,
              std::int64_t kv_head, std::int64_t first, float* to) {
  const std::int64_t dim = padded_dim(a.head_dim), size = static_cast<std::int64_t>(size_of(a.kv_dtype));
  const std::int64_t last = std::min(first + kTile, s.kv_rows);
  for (std::int64_t row = first; row < last; ++row, to += dim) {
    const std::byte* page = pages[static_cast<std::size_t>(row / a.page_rows)];
    LoadRow(a.kv_dtype, page + (row % a.page_rows * a.kv_heads + kv_head) * a.head_dim * size, a.head_dim, to);
  }
  std::fill_n(to, (first + kTile - last) * dim, 0.0F);
}

/// A packed tile: keys [dim, 64], values [64, dim]. `rows` is room for the keys before they are turned.
void PackTile(const AttentionSeq& s, const AttentionArgs& a, std::int64_t kv_head, std::int64_t first, float* rows,
              float* to) {
  const std::int64_t dim = padded_dim(a.head_dim);
  LoadTile(s, a, s.k_pages, kv_head, first, rows);
  for (std::int64_t d = 0; d < dim; ++d) {
    for (std::int64_t t = 0; t < kTile; ++t) to[d * kTile + t] = rows[t * dim + d];
  }
  LoadTile(s, a, s.v_pages, kv_head, first, to + kTile * dim);
}

/// c[R, 16 * kBlocks lanes] (+)= a[R, k] b[k, width]: columns in registers, k innermost.
template <int R, int kVectors>
HWY_INLINE void Product(const float* HWY_RESTRICT a, std::int64_t lda, const float* HWY_RESTRICT b, std::int64_t ldb,
                        std::int64_t k_count, float* HWY_RESTRICT c, std::int64_t ldc, bool add) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  V sums[R][kVectors];
  NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
    NIBBLE_UNROLL(kVectors)
    for (int j = 0; j < kVectors; ++j) sums[r][j] = add ? hn::Load(df, c + r * ldc + j * lanes) : hn::Zero(df);
  }
  for (std::int64_t k = 0; k < k_count; ++k) {
    V in[kVectors];
    NIBBLE_UNROLL(kVectors) for (int j = 0; j < kVectors; ++j) in[j] = hn::Load(df, b + k * ldb + j * lanes);
    NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
      const V x = hn::Set(df, a[r * lda + k]);
      NIBBLE_UNROLL(kVectors) for (int j = 0; j < kVectors; ++j) sums[r][j] = hn::MulAdd(x, in[j], sums[r][j]);
    }
  }
  NIBBLE_UNROLL(R) for (int r = 0; r < R; ++r) {
    NIBBLE_UNROLL(kVectors) for (int j = 0; j < kVectors; ++j) hn::Store(sums[r][j], df, c + r * ldc + j * lanes);
  }
}

/// c[rows, width] (+)= a[rows, k] b[k, width]; width is a multiple of 16.
HWY_INLINE void Products(const float* a, std::int64_t lda, const float* b, std::int64_t width, std::int64_t k_count,
                         float* c, std::int64_t ldc, std::int64_t rows, bool add) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Floats()));
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    std::int64_t j = 0;
    for (; j + 4 * lanes <= width; j += 4 * lanes)
      Product<4, 4>(a + r * lda, lda, b + j, width, k_count, c + r * ldc + j, ldc, add);
    for (; j < width; j += lanes) Product<4, 1>(a + r * lda, lda, b + j, width, k_count, c + r * ldc + j, ldc, add);
  }
  for (; r < rows; ++r) {
    std::int64_t j = 0;
    for (; j + 4 * lanes <= width; j += 4 * lanes)
      Product<1, 4>(a + r * lda, lda, b + j, width, k_count, c + r * ldc + j, ldc, add);
    for (; j < width; j += lanes) Product<1, 1>(a + r * lda, lda, b + j, width, k_count, c + r * ldc + j, ldc, add);
  }
}

/// scores[q, 64] by dot products with key rows [64, dim].
HWY_INLINE void Dots(const float* q, const float* keys, std::int64_t dim, std::int64_t count, float* scores) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t t = 0; t < kTile; ++t) {
      V sum = hn::Zero(df);
      for (std::int64_t d = 0; d < dim; d += lanes)
        sum = hn::MulAdd(hn::Load(df, q + i * dim + d), hn::Load(df, keys + t * dim + d), sum);
      scores[i * kTile + t] = hn::GetLane(hn::SumOfLanes(df, sum));
    }
  }
}

struct Running {
  float highest, total;
};

/// Turns a row of raw scores into weights relative to the running maximum; gives the factor for what was summed before.
HWY_INLINE float Soften(const AttentionArgs& a, const QueryRow& row, std::int64_t first, float* HWY_RESTRICT s,
                        Running& run) {
  const Floats df;
  const hn::RebindToSigned<Floats> di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const V none = hn::Set(df, -std::numeric_limits<float>::infinity());
  V highest = none;
  for (std::int64_t t = 0; t < kTile; t += lanes) {
    V v = hn::Mul(hn::Load(df, s + t), hn::Set(df, a.scale));
    if (a.softcap > 0) v = hn::Mul(hn::Tanh(df, hn::Div(v, hn::Set(df, a.softcap))), hn::Set(df, a.softcap));
    const auto at = hn::Iota(di, static_cast<std::int32_t>(first + t));
    if (row.alibi != 0) {
      v = hn::Add(v, hn::Mul(hn::Set(df, row.alibi),
                             hn::ConvertTo(df, hn::Sub(at, hn::Set(di, static_cast<std::int32_t>(row.position))))));
    }
    if (row.bias != nullptr) v = hn::Add(v, hn::LoadU(df, row.bias + first + t));
    const auto seen = hn::And(hn::Gt(at, hn::Set(di, static_cast<std::int32_t>(row.begin - 1))),
                              hn::Lt(at, hn::Set(di, static_cast<std::int32_t>(row.end))));
    v = hn::IfThenElse(hn::RebindMask(df, seen), v, none);
    highest = hn::Max(highest, v);
    hn::Store(v, df, s + t);
  }
  const float now = std::max(run.highest, hn::GetLane(hn::MaxOfLanes(df, highest)));
  if (now == -std::numeric_limits<float>::infinity()) {  // nothing seen yet
    std::fill_n(s, kTile, 0.0F);
    return 1;
  }
  const float factor = hn::GetLane(hn::Exp(df, hn::Set(df, run.highest - now)));
  V total = hn::Zero(df);
  for (std::int64_t t = 0; t < kTile; t += lanes) {
    const V weight = hn::Exp(df, hn::Sub(hn::Load(df, s + t), hn::Set(df, now)));
    total = hn::Add(total, weight);
    hn::Store(weight, df, s + t);
  }
  run.total = run.total * factor + hn::GetLane(hn::SumOfLanes(df, total));
  run.highest = now;
  return factor;
}

HWY_INLINE void Scale(float factor, std::int64_t count, float* HWY_RESTRICT row) {
  const Floats df;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(df));
  for (std::int64_t d = 0; d < count; d += lanes)
    hn::Store(hn::Mul(hn::Load(df, row + d), hn::Set(df, factor)), df, row + d);
}

void Attend(const AttentionTask& task) {
  const AttentionArgs& a = *task.args;
  const std::int64_t dim = padded_dim(a.head_dim), count = task.count;
  float* keys = task.scratch;
  float* values = keys + kTile * dim;
  float* q = values + kTile * dim;
  float* sums = q + kQueries * dim;
  float* scores = sums + kQueries * dim;
  std::array<Running, kQueries> running;
  std::int64_t begin = task.seq->kv_rows, end = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::copy_n(task.queries[i].q, a.head_dim, q + i * dim);
    std::fill_n(q + i * dim + a.head_dim, dim - a.head_dim, 0.0F);
    running[static_cast<std::size_t>(i)] = {-std::numeric_limits<float>::infinity(), 0};
    begin = std::min(begin, task.queries[i].begin);
    end = std::max(end, task.queries[i].end);
  }
  std::fill_n(sums, count * dim, 0.0F);
  for (std::int64_t first = begin / kTile * kTile; first < end; first += kTile) {
    const float* summed = values;
    if (task.packed != nullptr) {
      const float* tile = task.packed + first / kTile * tile_floats(a.head_dim);
      Products(q, dim, tile, kTile, dim, scores, kTile, count, false);
      summed = tile + kTile * dim;
    } else {
      LoadTile(*task.seq, a, task.seq->k_pages, task.kv_head, first, keys);
      LoadTile(*task.seq, a, task.seq->v_pages, task.kv_head, first, values);
      Dots(q, keys, dim, count, scores);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const float factor = Soften(a, task.queries[i], first, scores + i * kTile, running[static_cast<std::size_t>(i)]);
      if (factor != 1) Scale(factor, dim, sums + i * dim);
    }
    Products(scores, kTile, summed, dim, std::min(kTile, end - first), sums, dim, count, true);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    Scale(1 / running[static_cast<std::size_t>(i)].total, dim, sums + i * dim);
    std::copy_n(sums + i * dim, a.head_dim, task.queries[i].out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::cpu {
namespace {
HWY_EXPORT(Attend);
HWY_EXPORT(PackTile);

/// Floats of packed tiles kept at once: kv heads are done in batches that fit.
constexpr std::int64_t kPackedFloats = std::int64_t{1} << 24;

QueryRow query(const AttentionSeq& s, const AttentionArgs& a, std::int64_t q_row, std::int64_t head) {
  QueryRow row{};
  row.q = s.q + (q_row * a.heads + head) * a.head_dim;
  row.out = s.out + (q_row * a.heads + head) * a.head_dim;
  row.alibi = a.alibi_slopes != nullptr ? a.alibi_slopes[head] : 0;
  visible(s, a, q_row, row);
  if (a.distance_bias != nullptr)
    row.bias = a.distance_bias + head * a.distance_stride + a.distance_origin - row.position;
  return row;
}

/// All query rows of the heads that share kv head `kv_head`, straight from the pages.
void decode_task(const AttentionSeq& s, const AttentionArgs& a, std::int64_t kv_head, float* scratch) {
  const std::int64_t share = a.heads / a.kv_heads, all = s.q_rows * share;
  std::array<QueryRow, kQueries> rows;
  for (std::int64_t first = 0; first < all; first += kQueries) {
    const std::int64_t count = std::min(kQueries, all - first);
    for (std::int64_t i = 0; i < count; ++i) {
      rows[static_cast<std::size_t>(i)] = query(s, a, (first + i) / share, kv_head * share + (first + i) % share);
    }
    HWY_DYNAMIC_DISPATCH(Attend)({&s, &a, kv_head, rows.data(), count, nullptr, scratch});
  }
}

/// Heads [head0, head1), whose kv heads from `kv0` on are in `packed`, one block of query rows after the other.
void prefill(const AttentionSeq& s, const AttentionArgs& a, std::int64_t kv0, std::int64_t kv1, float* packed,
             Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t tiles = (s.kv_rows + kTile - 1) / kTile, tile = tile_floats(a.head_dim),
                     each = task_floats(a.head_dim);
  const std::span<float> scratch = exec.arena.take<float>(each * exec.pool.size());
  exec.pool.run((kv1 - kv0) * tiles, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    for (std::int64_t i = begin; i < end; ++i) {
      HWY_DYNAMIC_DISPATCH(PackTile)
      (s, a, kv0 + i / tiles, i % tiles * kTile, scratch.data() + worker * each, packed + i * tile);
    }
  });
  const std::int64_t share = a.heads / a.kv_heads, blocks = (s.q_rows + kQueries - 1) / kQueries;
  exec.pool.run((kv1 - kv0) * share * blocks, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    std::array<QueryRow, kQueries> rows;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t head = kv0 * share + i / blocks, first = i % blocks * kQueries;
      const std::int64_t count = std::min(kQueries, s.q_rows - first);
      for (std::int64_t r = 0; r < count; ++r) rows[static_cast<std::size_t>(r)] = query(s, a, first + r, head);
      HWY_DYNAMIC_DISPATCH(Attend)
      ({&s, &a, head / share, rows.data(), count, packed + (head / share - kv0) * tiles * tile,
        scratch.data() + worker * each});
    }
  });
}

bool is_short(const AttentionSeq& s, const AttentionArgs& a) { return s.q_rows * (a.heads / a.kv_heads) <= kQueries; }

}  // namespace

void attention(std::span<const AttentionSeq> seqs, const AttentionArgs& args, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t each = task_floats(args.head_dim);
  const std::span<float> scratch = exec.arena.take<float>(each * exec.pool.size());
  exec.pool.run(static_cast<std::int64_t>(seqs.size()) * args.kv_heads, 1,
                [&](std::int64_t begin, std::int64_t end, int worker) {
                  for (std::int64_t i = begin; i < end; ++i) {
                    const AttentionSeq& seq = seqs[static_cast<std::size_t>(i / args.kv_heads)];
                    if (is_short(seq, args)) decode_task(seq, args, i % args.kv_heads, scratch.data() + worker * each);
                  }
                });
  for (const AttentionSeq& seq : seqs) {
    if (is_short(seq, args) || seq.q_rows == 0) continue;
    const Arena::Scope inner(exec.arena);
    const std::int64_t one = (seq.kv_rows + kTile - 1) / kTile * tile_floats(args.head_dim);
    const std::int64_t batch = std::clamp<std::int64_t>(kPackedFloats / one, 1, args.kv_heads);
    const std::span<float> packed = exec.arena.take<float>(batch * one);
    for (std::int64_t kv = 0; kv < args.kv_heads; kv += batch) {
      prefill(seq, args, kv, std::min(args.kv_heads, kv + batch), packed.data(), exec);
    }
  }
}

}  // namespace nibble::cpu
#endif
