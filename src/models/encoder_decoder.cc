#include "models/encoder_decoder.h"

#include <algorithm>
#include <cmath>

#include "nn/each_linear.h"

namespace nibble::models {
namespace {

float* embed(const nn::Embedding& tokens, std::span<const std::int32_t> ids, float* to, Exec& exec) {
  for (const std::int32_t id : ids) {
    tokens.row(id, to, exec);
    to += tokens.table.cols;
  }
  return to;
}

template <class M, class Visit>
void visit_linears(M& model, const Visit& visit) {
  for (auto& block : model.encoder) nn::each_block_linear(block, visit);
  for (auto& block : model.decoder) {
    nn::each_attention_linear(block.attention, visit);
    for (auto* linear : {&block.cross.q, &block.cross.k, &block.cross.v, &block.cross.o}) visit(*linear);
    nn::each_mlp_linear(block.mlp, visit);
  }
  visit(model.head);
}

}  // namespace

void EncoderDecoder::each_linear(const std::function<void(const nn::Linear&)>& visit) const {
  visit_linears(*this, visit);
}
void EncoderDecoder::each_linear(const std::function<void(nn::Linear&)>& visit) { visit_linears(*this, visit); }

void EncoderDecoder::encode(std::span<const std::int32_t> ids, std::int64_t sequence, nn::KvCache& encoded,
                            Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  const auto rows = static_cast<std::int64_t>(ids.size());
  const nn::PassSeq seq{0, 0, rows, 0};
  nn::Pass pass;
  pass.rows = rows;
  pass.seqs = {&seq, 1};
  pass.bias = encoder_bias.table(rows, rows, exec);
  float* x = exec.arena.take<float>(rows * config.hidden_size).data();
  embed(tokens, ids, x, exec);
  for (const nn::Block& block : encoder) block.forward(x, pass, exec);
  encoder_norm.forward(x, rows, x, exec);
  for (const nn::CrossBlock& block : decoder) block.cross.remember(x, rows, sequence, encoded, exec);
  encoded.advance(sequence, rows);
}

void EncoderDecoder::forward(std::span<const PassItem> items, nn::KvCache& cache, const nn::KvCache& encoded,
                             float* logits, Exec& exec) const {
  const Arena::Scope scope(exec.arena);
  std::vector<nn::PassSeq> seqs;
  nn::Pass pass;
  std::int64_t kv_rows = 0, q_rows = 0;
  for (const PassItem& item : items) {
    const auto rows = static_cast<std::int64_t>(item.ids.size());
    seqs.push_back({item.sequence, pass.rows, rows, cache.length(item.sequence)});
    pass.rows += rows;
    kv_rows = std::max(kv_rows, seqs.back().past + rows);
    q_rows = std::max(q_rows, rows);
  }
  pass.seqs = seqs;
  pass.cache = &cache;
  pass.bias = decoder_bias.table(kv_rows, q_rows, exec);

  const std::int64_t width = config.hidden_size;
  float* x = exec.arena.take<float>(pass.rows * width).data();
  float* to = x;
  for (const PassItem& item : items) to = embed(tokens, item.ids, to, exec);
  for (const nn::CrossBlock& block : decoder) block.forward(x, pass, encoded, exec);
  for (const nn::PassSeq& s : seqs) cache.advance(s.sequence, s.rows);

  const std::int64_t kept = keep_logit_rows(items, seqs, width, x);
  if (kept == 0) return;
  decoder_norm.forward(x, kept, x, exec);
  if (config.scale_output) {
    const float factor = 1 / std::sqrt(static_cast<float>(width));
    for (std::int64_t i = 0; i < kept * width; ++i) x[i] *= factor;
  }
  head.forward(x, kept, logits, exec);
}

}  // namespace nibble::models
