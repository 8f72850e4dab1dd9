#include "nn/attention.h"

#include <algorithm>
#include <array>
#include <vector>

namespace nibble::nn {
namespace {

struct Heads {
  float* q;  ///< [rows, heads, head_dim]
  float* k;  ///< [rows, kv_heads, head_dim]
  float* v;
};

void project(const Attention& a, const float* x, std::int64_t rows, const Heads& to, Exec& exec) {
  if (a.qkv.weight.empty()) {
    const std::array<LinearJob, 3> jobs{{{&a.q, to.q}, {&a.k, to.k}, {&a.v, to.v}}};
    forward_many(jobs, x, rows, exec);
    return;
  }
  const Arena::Scope scope(exec.arena);
  const std::int64_t q_width = a.heads * a.head_dim, kv_width = a.kv_heads * a.head_dim;
  const std::int64_t width = q_width + 2 * kv_width;
  const float* fused = [&] {
    float* out = exec.arena.take<float>(rows * width).data();
    a.qkv.forward(x, rows, out, exec);
    return out;
  }();
  if (a.qkv_order == QkvOrder::heads) {
    // The fused weight stays as it is stored, quantized or not: its few outputs are moved, not its rows.
    for (std::int64_t i = 0; i < rows * a.heads; ++i) {
      const float* from = fused + i * 3 * a.head_dim;
      std::copy_n(from, a.head_dim, to.q + i * a.head_dim);
      std::copy_n(from + a.head_dim, a.head_dim, to.k + i * a.head_dim);
      std::copy_n(from + 2 * a.head_dim, a.head_dim, to.v + i * a.head_dim);
    }
    return;
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* from = fused + row * width;
    std::copy_n(from, q_width, to.q + row * q_width);
    std::copy_n(from + q_width, kv_width, to.k + row * kv_width);
    std::copy_n(from + q_width + kv_width, kv_width, to.v + row * kv_width);
  }
}

/// Rotates x [rows, heads, head_dim], the output of `from`. An int8 output that is still a tensor of codes when Quanto
/// rotates it is negated as int8: -(-128) wraps to -128, and with it the value.
void rotate(const Linear& from, float* x, std::int64_t heads, std::int64_t head_dim, const Pass& pass, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const bool wraps = from.activation && from.activation->quantize_output && from.activation->qtype == DType::i8;
  const std::int64_t half = pass.rope.rotary_dim / 2, count = pass.rows * heads * head_dim;
  const float* before = x;
  if (wraps) {
    float* copy = exec.arena.take<float>(count).data();
    std::copy_n(x, count, copy);
    before = copy;
  }
  exec.ops().rope(x, pass.rope, pass.rows, heads, head_dim, exec);
  if (!wraps) return;
  const float lowest = round_to(from.weight.dtype, -128 * from.activation->output_scale);
  for (std::int64_t i = 0; i < pass.rows * heads; ++i) {
    const float* cos = pass.rope.cos + i / heads * half;
    const float* sin = pass.rope.sin + i / heads * half;
    for (std::int64_t j = 0; j < half; ++j) {
      const float first = before[i * head_dim + j], second = before[i * head_dim + j + half];
      if (second == lowest) x[i * head_dim + j] = first * cos[j] + second * sin[j];
    }
  }
}

/// Stores keys and values, then attends to all that the cache holds of each sequence.
void attend_cached(const Attention& a, const Heads& h, const Pass& pass, AttentionArgs args, float* out, Exec& exec) {
  const std::int64_t q_width = a.heads * a.head_dim, kv_width = a.kv_heads * a.head_dim;
  std::vector<AttentionSeq> seqs;
  seqs.reserve(pass.seqs.size());
  for (const PassSeq& s : pass.seqs) {
    pass.cache->write(s.sequence, a.layer, s.past, s.rows, h.k + s.first_row * kv_width, h.v + s.first_row * kv_width);
    AttentionSeq& to = seqs.emplace_back();
    to.q = h.q + s.first_row * q_width;
    to.out = out + s.first_row * q_width;
    to.q_rows = s.rows;
    to.kv_rows = s.past + s.rows;
    to.k_pages = pass.cache->k_pages(s.sequence, a.layer);
    to.v_pages = pass.cache->v_pages(s.sequence, a.layer);
  }
  args.page_rows = pass.cache->shape().page_rows;
  args.kv_dtype = pass.cache->shape().dtype;
  exec.ops().attention(seqs, args, exec);
}

/// Encoders: each sequence's own rows are its only page.
void attend_both_ways(const Attention& a, const Heads& h, const Pass& pass, AttentionArgs args, float* out,
                      Exec& exec) {
  const std::int64_t q_width = a.heads * a.head_dim, kv_width = a.kv_heads * a.head_dim;
  args.causal = false;
  for (const PassSeq& s : pass.seqs) {
    const auto* k = reinterpret_cast<const std::byte*>(h.k + s.first_row * kv_width);
    const auto* v = reinterpret_cast<const std::byte*>(h.v + s.first_row * kv_width);
    AttentionSeq seq;
    seq.q = h.q + s.first_row * q_width;
    seq.out = out + s.first_row * q_width;
    seq.q_rows = seq.kv_rows = args.page_rows = s.rows;
    seq.k_pages = {&k, 1};
    seq.v_pages = {&v, 1};
    exec.ops().attention({&seq, 1}, args, exec);
  }
}

}  // namespace

void Attention::forward(const float* x, const Pass& pass, float* y, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const std::int64_t q_width = heads * head_dim;
  float* mixed = exec.arena.take<float>(pass.rows * q_width).data();
  if (exec.tap == nullptr || !exec.tap->recall(o.name, mixed, pass.rows, q_width)) mix(x, pass, mixed, exec);
  o.forward(mixed, pass.rows, y, exec);
}

void Attention::mix(const float* x, const Pass& pass, float* mixed, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const std::int64_t q_width = heads * head_dim, kv_width = kv_heads * head_dim;
  const Heads h{exec.arena.take<float>(pass.rows * q_width).data(), exec.arena.take<float>(pass.rows * kv_width).data(),
                exec.arena.take<float>(pass.rows * kv_width).data()};
  project(*this, x, pass.rows, h, exec);
  if (q_norm.size > 0) q_norm.forward(h.q, pass.rows * heads, h.q, exec);
  if (k_norm.size > 0) k_norm.forward(h.k, pass.rows * kv_heads, h.k, exec);
  if (pass.rope.cos != nullptr) {
    // Norms of q and k lie between and leave no codes; nor does a fused product know whose codes it holds.
    static const Linear kPlain;
    rotate(q_norm.size > 0 ? kPlain : q, h.q, heads, head_dim, pass, exec);
    rotate(k_norm.size > 0 ? kPlain : k, h.k, kv_heads, head_dim, pass, exec);
  }

  AttentionArgs args;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = head_dim;
  args.scale = scale;
  args.sliding_window = sliding_window;
  args.alibi_slopes = alibi_slopes.empty() ? nullptr : alibi_slopes.data();
  args.distance_bias = pass.bias.values;
  args.distance_stride = pass.bias.stride;
  args.distance_origin = pass.bias.origin;
  if (pass.cache != nullptr) {
    attend_cached(*this, h, pass, args, mixed, exec);
  } else {
    attend_both_ways(*this, h, pass, args, mixed, exec);
  }
}

}  // namespace nibble::nn
