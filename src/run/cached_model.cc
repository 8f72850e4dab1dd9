#include "run/cached_model.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"

namespace nibble {

CachedModel::CachedModel(const nn::KvShape& shape, ModelInfo info, const ModelOptions& options)
    : cache_(shape), info_(std::move(info)), chunk_(std::max<std::int64_t>(options.prefill_chunk, 1)) {
  info_.kv_page_rows = cache_.shape().page_rows;
  info_.kv_page_bytes = cache_.page_bytes();
}

void CachedModel::forward(std::span<const BatchItem> items, std::vector<float>& logits, Exec& exec) {
  validate(items);
  for (const BatchItem& item : items) {
    if (!cache_.reserve(item.sequence, static_cast<std::int64_t>(item.ids.size()))) {
      throw runtime_failure("the KV cache is full: ", cache_.pages_in_use(), " pages are in use");
    }
  }
  std::int64_t rows = 0;
  for (const BatchItem& item : items) rows += item.all_logits ? static_cast<std::int64_t>(item.ids.size()) : 1;
  logits.resize(static_cast<std::size_t>(rows * info_.vocab_size));
  float* to = logits.data();

  // Passes of at most chunk_ rows, filled item by item.
  std::vector<models::PassItem> pass;
  std::int64_t room = chunk_, wanted = 0;
  const auto flush = [&] {
    if (!pass.empty()) compute(pass, to, exec);
    to += wanted * info_.vocab_size;
    pass.clear();
    room = chunk_;
    wanted = 0;
  };
  for (const BatchItem& item : items) {
    const auto count = static_cast<std::int64_t>(item.ids.size());
    const std::int64_t length = std::max(item.final_length, cache_.length(item.sequence) + count);
    for (std::int64_t done = 0; done < count;) {
      if (room == 0) flush();
      const std::int64_t take = std::min(room, count - done);
      models::PassItem& part = pass.emplace_back();
      part.sequence = item.sequence;
      part.ids = item.ids.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(take));
      part.length = length;
      part.logits = item.all_logits ? take : (done + take == count ? 1 : 0);
      wanted += part.logits;
      done += take;
      room -= take;
    }
  }
  flush();
}

void CachedModel::validate(std::span<const BatchItem> items) const {
  std::set<std::int64_t> seen;
  for (const BatchItem& item : items) {
    check(cache_.is_open(item.sequence), "Model::forward: no such sequence");
    check(seen.insert(item.sequence).second, "Model::forward: a sequence appears twice");
    if (item.ids.empty()) throw bad_input("there are no tokens to compute");
    check_ids(item.ids);
    const std::int64_t length = cache_.length(item.sequence) + static_cast<std::int64_t>(item.ids.size());
    if (info_.context_length > 0 && length > info_.context_length) {
      throw bad_input("the sequence would have ", length, " tokens, but the context holds ", info_.context_length);
    }
  }
}

void CachedModel::check_ids(std::span<const std::int32_t> ids) const {
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= info_.vocab_size) {
      throw bad_input("token id ", id, " is outside the model's vocabulary of ", info_.vocab_size);
    }
  }
}

}  // namespace nibble
