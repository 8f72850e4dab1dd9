#include "calib/block_runner.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

/// Leaves a pass that has shown all that was asked for.
struct PassDone {};

}  // namespace

/// Carries activations in and out of a decoder: the blocks below stand before and after the one that is run. Everything
/// else of a pass (positions, masks) is thus the decoder's own, whatever its family.
class BlockRunner::Carrier final : public Tap {
 public:
  Carrier(BlockRunner& runner, const BlockRunner::Run& options, std::int64_t sequence, const float* in, float* out)
      : runner_(runner), options_(options), sequence_(sequence), awaited_(options.until), in_(in), out_(out) {}

  void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override {
    if (options_.tap != nullptr) options_.tap->linear_input(module, x, m, k);
    const auto found = awaited_.find(module);
    if (found == awaited_.end()) return;
    awaited_.erase(found);
    if (options_.keep && runner_.places_.contains(module) && m == runner_.rows_of(sequence_)) {
      float* const to = runner_.place_of(module, sequence_, k);
      if (to != nullptr && to != x) std::copy_n(x, m * k, to);
    }
    if (awaited_.empty()) throw PassDone{};
  }
  void linear_output(std::string_view module, const float* y, std::int64_t m, std::int64_t n) override {
    if (options_.tap != nullptr) options_.tap->linear_output(module, y, m, n);
  }
  void static_scales(std::string_view module, StaticScales& scales) override {
    if (options_.tap != nullptr) options_.tap->static_scales(module, scales);
  }
  bool recall(std::string_view module, float* x, std::int64_t m, std::int64_t k) override {
    runner_.places_.emplace(module);
    const float* from = runner_.remembered(module, sequence_);
    if (from == nullptr || m != runner_.rows_of(sequence_)) return false;
    std::copy_n(from, m * k, x);
    return true;
  }

  static void put_block(const nn::Block& block, float* x, const nn::Pass& pass, Exec& exec) {
    std::copy_n(of(exec).in_, pass.rows * block.attention_norm.size, x);
  }
  static void take_block(const nn::Block& block, float* x, const nn::Pass& pass, Exec& exec) {
    std::copy_n(x, pass.rows * block.attention_norm.size, of(exec).out_);
  }

 private:
  static const Carrier& of(const Exec& exec) {
    const auto* carrier = dynamic_cast<const Carrier*>(exec.tap);
    check(carrier != nullptr, "block_runner: another tap");
    return *carrier;
  }

  BlockRunner& runner_;
  const BlockRunner::Run& options_;
  std::int64_t sequence_;
  std::set<std::string, std::less<>> awaited_;
  const float* in_;
  float* out_;
};

namespace {

nn::Block carrying(nn::BlockForward run, std::int64_t width) {
  nn::Block block;
  block.run = run;
  block.attention_norm.size = width;
  return block;
}

std::int64_t bytes_of(const ScratchArray& values) { return values.size() * static_cast<std::int64_t>(sizeof(float)); }

/// Numbers the blocks that attend from 0 on, as layers of a cache that has these only.
nn::KvShape own_cache(models::Decoder& decoder) {
  std::int64_t layers = 0;
  for (nn::Block& block : decoder.blocks) {
    if (block.attention.heads > 0) block.attention.layer = layers++;
  }
  nn::KvShape shape;
  shape.layers = std::max<std::int64_t>(layers, 1);
  shape.kv_heads = decoder.config.num_kv_heads;
  shape.head_dim = decoder.config.head_dim;
  return shape;
}

}  // namespace

BlockRunner::BlockRunner(const models::Decoder& decoder, std::vector<std::vector<std::int32_t>> sequences, Exec& exec,
                         const std::filesystem::path& spill)
    : decoder_(decoder),
      sequences_(std::move(sequences)),
      exec_(exec),
      hidden_(decoder.config.hidden_size),
      spill_(spill) {
  for (const auto& ids : sequences_) {
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= decoder.config.vocab_size) {
        throw bad_input("calibration data: token id ", id, " is outside the model's vocabulary of ",
                        decoder.config.vocab_size);
      }
    }
    first_.push_back(tokens_);
    tokens_ += static_cast<std::int64_t>(ids.size());
  }
  activations_ = ScratchArray(tokens_ * hidden_, spill);
  models::Decoder embedding = decoder;
  embedding.blocks = {carrying(&Carrier::take_block, hidden_)};
  for (std::size_t s = 0; s < sequences_.size(); ++s)
    pass(embedding, static_cast<std::int64_t>(s), {.advance = true}, false);
}

void BlockRunner::run(std::int64_t index, const Run& options) {
  models::Decoder one = decoder_;
  one.blocks = {carrying(&Carrier::put_block, hidden_), decoder_.blocks.at(static_cast<std::size_t>(index))};
  if (options.advance) one.blocks.push_back(carrying(&Carrier::take_block, hidden_));
  const std::int64_t end = options.first + std::min(sequences() - options.first, options.most);
  for (std::int64_t s = options.first; s < end; ++s) {
    if (options.on_sequence) options.on_sequence(s);
    pass(one, s, options, true);
  }
  if (!options.advance) return;
  for (const auto& [module, kept] : remembered_) room_ += bytes_of(kept.values);
  remembered_.clear();
  places_.clear();
}

std::vector<float> BlockRunner::logits(std::int64_t first, std::int64_t sequence) {
  check(remembered_.empty(), "block_runner: logits while inputs of a block are remembered");
  models::Decoder rest = decoder_;
  rest.blocks.erase(rest.blocks.begin(), rest.blocks.begin() + first);
  rest.blocks.insert(rest.blocks.begin(), carrying(&Carrier::put_block, hidden_));
  std::vector<float> out(static_cast<std::size_t>(rows_of(sequence) * decoder_.config.vocab_size));
  pass(rest, sequence, {}, true, out.data());
  return out;
}

float* BlockRunner::place_of(std::string_view module, std::int64_t sequence, std::int64_t cols) {
  auto found = remembered_.find(module);
  if (found == remembered_.end()) {
    const std::int64_t bytes = tokens_ * cols * static_cast<std::int64_t>(sizeof(float));
    if (bytes > room_) return nullptr;
    room_ -= bytes;
    found = remembered_.emplace(module, Remembered{cols, ScratchArray(tokens_ * cols, spill_), {}}).first;
    found->second.sequences.resize(sequences_.size());
  }
  check(found->second.cols == cols, "block_runner: width of an input");
  found->second.sequences[static_cast<std::size_t>(sequence)] = true;
  return found->second.values.data() + first_[static_cast<std::size_t>(sequence)] * cols;
}

const float* BlockRunner::remembered(std::string_view module, std::int64_t sequence) const {
  const auto found = remembered_.find(module);
  if (found == remembered_.end() || !found->second.sequences[static_cast<std::size_t>(sequence)]) return nullptr;
  return found->second.values.data() + first_[static_cast<std::size_t>(sequence)] * found->second.cols;
}

void BlockRunner::pass(models::Decoder& decoder, std::int64_t sequence, const Run& options, bool inject,
                       float* logits) {
  const std::vector<std::int32_t>& ids = sequences_[static_cast<std::size_t>(sequence)];
  if (ids.empty()) return;
  float* const rows = activations_.data() + first_[static_cast<std::size_t>(sequence)] * hidden_;
  Carrier carrier(*this, options, sequence, inject ? rows : nullptr, options.advance ? rows : nullptr);
  nn::KvCache cache(own_cache(decoder));
  models::PassItem item;
  item.sequence = cache.open();
  item.ids = ids;
  item.length = static_cast<std::int64_t>(ids.size());
  item.logits = logits == nullptr ? 0 : item.length;
  if (!cache.reserve(item.sequence, item.length)) throw runtime_failure("no memory for keys and values");
  Exec exec = exec_;
  exec.tap = &carrier;
  try {
    decoder.forward({&item, 1}, cache, logits, exec);
  } catch (const PassDone&) {  // the rest of the block would be computed for nothing
  }
  activations_.release(first_[static_cast<std::size_t>(sequence)] * hidden_, item.length * hidden_);
}

}  // namespace nibble
