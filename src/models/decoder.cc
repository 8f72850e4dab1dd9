#include "models/decoder.h"

#include <algorithm>

#include "nn/each_linear.h"

namespace nibble::models {
namespace {

/// Token and position embeddings of all items, [rows, hidden_size].
void embed(const Decoder& d, std::span<const PassItem> items, std::span<const nn::PassSeq> seqs, float* x, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t width = d.config.embed_size, hidden = d.config.hidden_size;
  const nn::PassSeq& last = seqs.back();
  const std::int64_t rows = last.first_row + last.rows;
  const bool projected = !d.project_in.weight.empty();
  float* tokens = projected ? exec.arena.take<float>(rows * width).data() : x;
  float* to = tokens;
  for (const PassItem& item : items) {
    for (const std::int32_t id : item.ids) {
      d.tokens.row(id, to, exec);
      to += width;
    }
  }
  if (projected) d.project_in.forward(tokens, rows, x, exec);
  if (d.embedding_norm.size > 0) d.embedding_norm.forward(x, rows, x, exec);
  if (d.positions.table.empty()) return;
  float* learned = exec.arena.take<float>(rows * hidden).data();
  for (const nn::PassSeq& s : seqs) {
    d.positions.rows(s.past + d.position_offset, s.rows, learned + s.first_row * hidden, exec);
  }
  exec.ops().add(learned, rows * hidden, x, exec);
}

RopeTable rope_of(const Decoder& d, std::span<const PassItem> items, const nn::Pass& pass, Exec& exec) {
  RopeTable table;
  if (!d.rope) return table;
  table.rotary_dim = d.rope->rotary_dim();
  const std::int64_t width = table.rotary_dim / 2;
  float* cos = exec.arena.take<float>(pass.rows * width).data();
  float* sin = exec.arena.take<float>(pass.rows * width).data();
  for (std::size_t i = 0; i < items.size(); ++i) {
    const nn::PassSeq& s = pass.seqs[i];
    d.rope->table(s.past, s.rows, items[i].length, cos + s.first_row * width, sin + s.first_row * width);
  }
  table.cos = cos;
  table.sin = sin;
  return table;
}

}  // namespace

std::int64_t keep_logit_rows(std::span<const PassItem> items, std::span<const nn::PassSeq> seqs, std::int64_t width,
                             float* x) {
  std::int64_t kept = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const nn::PassSeq& s = seqs[i];
    const std::int64_t from = s.first_row + s.rows - items[i].logits;
    if (from != kept) std::copy_n(x + from * width, items[i].logits * width, x + kept * width);
    kept += items[i].logits;
  }
  return kept;
}

namespace {

template <class D, class Visit>
void visit_linears(D& decoder, const Visit& visit) {
  nn::visit_present(decoder.project_in, visit);
  for (auto& block : decoder.blocks) nn::each_block_linear(block, visit);
  nn::visit_present(decoder.project_out, visit);
  nn::visit_present(decoder.head, visit);
}

}  // namespace

void Decoder::each_linear(const std::function<void(const nn::Linear&)>& visit) const { visit_linears(*this, visit); }
void Decoder::each_linear(const std::function<void(nn::Linear&)>& visit) { visit_linears(*this, visit); }

void Decoder::forward(std::span<const PassItem> items, nn::KvCache& cache, float* logits, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  std::vector<nn::PassSeq> seqs;
  nn::Pass pass;
  for (const PassItem& item : items) {
    const auto rows = static_cast<std::int64_t>(item.ids.size());
    seqs.push_back({item.sequence, pass.rows, rows, cache.length(item.sequence)});
    pass.rows += rows;
  }
  pass.seqs = seqs;
  pass.cache = &cache;
  pass.rope = rope_of(*this, items, pass, exec);

  float* x = exec.arena.take<float>(pass.rows * config.hidden_size).data();
  embed(*this, items, seqs, x, exec);
  for (const nn::Block& block : blocks) block.forward(x, pass, exec);
  for (const nn::PassSeq& s : seqs) cache.advance(s.sequence, s.rows);

  const std::int64_t kept = keep_logit_rows(items, seqs, config.hidden_size, x);
  if (kept == 0) return;
  if (final_norm.size > 0) final_norm.forward(x, kept, x, exec);
  if (project_out.weight.empty()) {
    head.forward(x, kept, logits, exec);
    return;
  }
  float* narrow = exec.arena.take<float>(kept * config.embed_size).data();
  project_out.forward(x, kept, narrow, exec);
  head.forward(narrow, kept, logits, exec);
}

}  // namespace nibble::models
