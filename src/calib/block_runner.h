// Runs a decoder block by block over calibration sequences: the activations between two blocks are kept, so that a
// block can be run again and again while its weights change.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/scratch_array.h"
#include "models/decoder.h"

namespace nibble {

class BlockRunner {
 public:
  /// Embeds the sequences (ids inside the vocabulary: Error(bad_input) else). `decoder` must outlive the object; its
  /// blocks may change. Memory: 4 bytes per token and hidden channel; with `spill`, on the disk in that folder.
  BlockRunner(const models::Decoder& decoder, std::vector<std::vector<std::int32_t>> sequences, Exec& exec,
              const std::filesystem::path& spill = {});

  std::int64_t tokens() const { return tokens_; }
  std::int64_t hidden() const { return hidden_; }
  /// What goes into the block that comes next, [tokens, hidden], sequence by sequence.
  std::span<const float> activations() const {
    return {activations_.data(), static_cast<std::size_t>(activations_.size())};
  }

  /// From now on runs may remember up to `bytes` of inputs of linears (Run::keep), on the disk where activations are.
  void remember(std::int64_t bytes) { room_ = bytes; }

  /// Runs block number `index` over all sequences from `first` on, or `most` of them. `tap` (may be null) sees its
  /// linears. With `advance` its outputs replace the activations. `on_sequence` (may be empty) is called before each
  /// with its number.
  struct Run {
    Tap* tap = nullptr;
    bool advance = false;
    std::set<std::string, std::less<>> until{};  ///< a pass ends when all of these have seen their input; empty: never
    /// The inputs of `until` are final: later runs of this block, until it advances, begin from those of them that end
    /// an attention or an MLP, while there is room for them. The same values, sooner.
    bool keep = false;
    std::int64_t first = 0;
    std::int64_t most = std::numeric_limits<std::int64_t>::max();
    std::function<void(std::int64_t)> on_sequence{};
  };
  void run(std::int64_t index, const Run& options);
  /// Logits [tokens, vocab] of one sequence, through the blocks from `first` on; activations stay.
  std::vector<float> logits(std::int64_t first, std::int64_t sequence);
  std::int64_t sequences() const { return static_cast<std::int64_t>(sequences_.size()); }

 private:
  class Carrier;
  /// The input of a linear, for the sequences that have run.
  struct Remembered {
    std::int64_t cols = 0;
    ScratchArray values;          ///< [tokens, cols]
    std::vector<bool> sequences;  ///< that are there
  };
  /// Where `module`'s input of a sequence is to be kept; nullptr when there is no room.
  float* place_of(std::string_view module, std::int64_t sequence, std::int64_t cols);
  /// nullptr when it is not remembered.
  const float* remembered(std::string_view module, std::int64_t sequence) const;
  std::int64_t rows_of(std::int64_t sequence) const {
    return static_cast<std::int64_t>(sequences_[static_cast<std::size_t>(sequence)].size());
  }
  /// Renumbers the blocks of `decoder`. `logits` (may be null): [tokens, vocab].
  void pass(models::Decoder& decoder, std::int64_t sequence, const Run& options, bool inject, float* logits = nullptr);

  const models::Decoder& decoder_;
  std::vector<std::vector<std::int32_t>> sequences_;
  std::vector<std::int64_t> first_;  ///< first row of each sequence
  Exec& exec_;
  std::int64_t tokens_ = 0, hidden_ = 0;
  ScratchArray activations_;
  std::filesystem::path spill_;
  std::map<std::string, Remembered, std::less<>> remembered_;
  std::set<std::string, std::less<>> places_;  ///< linears that a pass can begin from
  std::int64_t room_ = 0;                      ///< bytes
};

}  // namespace nibble
