// Softmax attention over paged keys and values, one query row and head at a time.
#include <algorithm>
#include <cmath>
#include <limits>

#include "device/ref/ref.h"

namespace nibble::ref {
namespace {

/// Element 0 of position `row` of kv head `head`, as an index into its page.
std::int64_t offset_in_page(const AttentionArgs& a, std::int64_t row, std::int64_t head) {
  return (row % a.page_rows * a.kv_heads + head) * a.head_dim;
}

double score_of(const AttentionSeq& s, const AttentionArgs& a, const float* q, std::int64_t position, std::int64_t row,
                std::int64_t head) {
  const std::int64_t kv_head = head / (a.heads / a.kv_heads);
  const std::byte* page = s.k_pages[static_cast<std::size_t>(row / a.page_rows)];
  const std::int64_t offset = offset_in_page(a, row, kv_head);
  double dot = 0;
  for (std::int64_t d = 0; d < a.head_dim; ++d)
    dot += static_cast<double>(q[d]) * load_as_f32(a.kv_dtype, page, offset + d);
  double score = dot * a.scale;
  if (a.softcap > 0) score = a.softcap * std::tanh(score / a.softcap);
  if (a.alibi_slopes != nullptr) score += a.alibi_slopes[head] * static_cast<double>(row - position);
  if (a.distance_bias != nullptr)
    score += a.distance_bias[head * a.distance_stride + a.distance_origin + row - position];
  return score;
}

void attend(const AttentionSeq& s, const AttentionArgs& a, std::int64_t q_row, std::int64_t head, double* weights) {
  const std::int64_t position = s.kv_rows - s.q_rows + q_row;
  const std::int64_t end = a.causal ? position + 1 : s.kv_rows;
  const std::int64_t begin =
      a.causal && a.sliding_window > 0 ? std::max<std::int64_t>(0, position + 1 - a.sliding_window) : 0;
  const float* q = s.q + (q_row * a.heads + head) * a.head_dim;
  float* out = s.out + (q_row * a.heads + head) * a.head_dim;
  double* sums = weights + (end - begin);
  std::fill_n(sums, a.head_dim, 0.0);
  double highest = -std::numeric_limits<double>::infinity();
  for (std::int64_t row = begin; row < end; ++row) {
    weights[row - begin] = score_of(s, a, q, position, row, head);
    highest = std::max(highest, weights[row - begin]);
  }
  double total = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    const double weight = std::exp(weights[row - begin] - highest);
    const std::byte* page = s.v_pages[static_cast<std::size_t>(row / a.page_rows)];
    const std::int64_t offset = offset_in_page(a, row, head / (a.heads / a.kv_heads));
    total += weight;
    for (std::int64_t d = 0; d < a.head_dim; ++d) sums[d] += weight * load_as_f32(a.kv_dtype, page, offset + d);
  }
  for (std::int64_t d = 0; d < a.head_dim; ++d) out[d] = static_cast<float>(sums[d] / total);
}

}  // namespace

void attention(std::span<const AttentionSeq> seqs, const AttentionArgs& args, Exec& exec) {
  for (const AttentionSeq& seq : seqs) {
    const Arena::Scope scope(exec.arena);
    const std::int64_t each = seq.kv_rows + args.head_dim;
    const std::span<double> work = exec.arena.take<double>(exec.pool.size() * each);
    exec.pool.run(seq.q_rows * args.heads, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
      for (std::int64_t i = begin; i < end; ++i)
        attend(seq, args, i / args.heads, i % args.heads, work.data() + worker * each);
    });
  }
}

}  // namespace nibble::ref
