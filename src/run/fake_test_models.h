// For tests: a tokenizer whose text is its ids ("3 1 4"), and a model whose logits are a known function of the last
// token and the position, so that every expected number can be computed by hand.
#pragma once
#include <charconv>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "run/model.h"
#include "text/tokenizer.h"

namespace nibble::test {

class NumberTokenizer : public Tokenizer {
 public:
  std::optional<std::int32_t> bos, eos;
  bool add_bos = false;
  mutable std::vector<EncodeOptions> seen;

  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
    seen.push_back(options);
    std::vector<std::int32_t> ids;
    if (options.add_special && add_bos) ids.push_back(*bos);
    const char* at = text.data();
    const char* end = at + text.size();
    while (at < end) {
      std::int32_t id = 0;
      const auto [next, error] = std::from_chars(at, end, id);
      if (error == std::errc()) ids.push_back(id);
      at = next + 1;
    }
    return ids;
  }
  std::string decode(std::span<const std::int32_t>, bool) const override { return {}; }
  std::int64_t vocab_size() const override { return 100; }
  std::optional<std::int32_t> token_to_id(std::string_view) const override { return {}; }
  std::optional<std::string> id_to_token(std::int32_t) const override { return {}; }
  bool is_special(std::int32_t) const override { return false; }
  std::optional<std::int32_t> bos_id() const override { return bos; }
  std::optional<std::int32_t> eos_id() const override { return eos; }
  bool adds_bos() const override { return add_bos; }
};

/// A text of the ids begin .. end - 1.
inline std::string numbers(int begin, int end) {
  std::string text;
  for (int i = begin; i < end; ++i) text += std::to_string(i) + " ";
  return text;
}

class TableModel : public Model {
 public:
  TableModel(std::int64_t vocab, float sharpness) : sharpness_(sharpness) {
    info_.vocab_size = vocab;
    info_.context_length = 64;
  }
  const ModelInfo& info() const override { return info_; }
  std::int64_t open_sequence() override {
    const std::int64_t id = next_++;
    sequences_[id] = {};
    return id;
  }
  void close_sequence(std::int64_t sequence) override { sequences_.erase(sequence); }
  std::int64_t sequence_length(std::int64_t sequence) const override {
    return static_cast<std::int64_t>(sequences_.at(sequence).size());
  }
  std::int64_t fork_sequence(std::int64_t sequence, std::int64_t rows) override {
    const std::int64_t id = next_++;
    const auto& ids = sequences_.at(sequence);
    sequences_[id].assign(ids.begin(), ids.begin() + rows);
    return id;
  }
  void truncate_sequence(std::int64_t sequence, std::int64_t rows) override {
    sequences_.at(sequence).resize(static_cast<std::size_t>(rows));
  }
  void forward(std::span<const BatchItem> items, std::vector<float>& logits, Exec&) override {
    logits.clear();
    for (const BatchItem& item : items) {
      auto& ids = sequences_.at(item.sequence);
      for (std::size_t i = 0; i < item.ids.size(); ++i) {
        ids.push_back(item.ids[i]);
        if (!item.all_logits && i + 1 != item.ids.size()) continue;
        for (std::int64_t v = 0; v < info_.vocab_size; ++v)
          logits.push_back(logit(ids.back(), static_cast<std::int64_t>(ids.size()) - 1, v));
      }
    }
  }
  /// Logit of token `next` after `last` at `position`.
  float logit(std::int32_t last, std::int64_t position, std::int64_t next) const {
    return poison && next == 3 ? std::numeric_limits<float>::quiet_NaN()
                               : sharpness_ * static_cast<float>((last * 7 + position * 3 + next * next * 5) % 11);
  }
  std::size_t open_sequences() const { return sequences_.size(); }
  ModelInfo info_;
  bool poison = false;

 private:
  float sharpness_;
  std::int64_t next_ = 0;
  std::map<std::int64_t, std::vector<std::int32_t>> sequences_;
};

}  // namespace nibble::test
