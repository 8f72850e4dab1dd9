#include "nn/cross_attention.h"

#include <array>
#include <vector>

namespace nibble::nn {

void CrossAttention::remember(const float* encoded, std::int64_t rows, std::int64_t sequence, KvCache& cache,
                              Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  float* keys = exec.arena.take<float>(rows * heads * head_dim).data();
  float* values = exec.arena.take<float>(rows * heads * head_dim).data();
  const std::array<LinearJob, 2> jobs{{{&k, keys}, {&v, values}}};
  forward_many(jobs, encoded, rows, exec);
  cache.write(sequence, layer, 0, rows, keys, values);
}

void CrossAttention::forward(const float* x, const Pass& pass, const KvCache& cache, float* y, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const std::int64_t width = heads * head_dim;
  float* queries = exec.arena.take<float>(pass.rows * width).data();
  float* mixed = exec.arena.take<float>(pass.rows * width).data();
  q.forward(x, pass.rows, queries, exec);
  std::vector<AttentionSeq> seqs;
  seqs.reserve(pass.seqs.size());
  for (const PassSeq& s : pass.seqs) {
    AttentionSeq& to = seqs.emplace_back();
    to.q = queries + s.first_row * width;
    to.out = mixed + s.first_row * width;
    to.q_rows = s.rows;
    to.kv_rows = cache.length(s.sequence);
    to.k_pages = cache.k_pages(s.sequence, layer);
    to.v_pages = cache.v_pages(s.sequence, layer);
  }
  AttentionArgs args;
  args.heads = args.kv_heads = heads;
  args.head_dim = head_dim;
  args.page_rows = cache.shape().page_rows;
  args.kv_dtype = cache.shape().dtype;
  args.scale = scale;
  args.causal = false;
  exec.ops().attention(seqs, args, exec);
  o.forward(mixed, pass.rows, y, exec);
}

}  // namespace nibble::nn
