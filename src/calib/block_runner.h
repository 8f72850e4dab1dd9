// Runs a decoder block by block over calibration sequences: the activations between two blocks are kept, so that a
// block can be run again and again while its weights change.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
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

  /// Runs block number `index` over all sequences from `first` on, or `most` of them. `tap` (may be null) sees its
  /// linears. With `advance` its outputs replace the activations. `on_sequence` (may be empty) is called before each
  /// with its number.
  struct Run {
    Tap* tap = nullptr;
    bool advance = false;
    std::set<std::string, std::less<>> until{};  ///< a pass ends when all of these have seen their input; empty: never
    std::int64_t first = 0;
    std::int64_t most = std::numeric_limits<std::int64_t>::max();
    std::function<void(std::int64_t)> on_sequence{};
  };
  void run(std::int64_t index, const Run& options);
  std::int64_t sequences() const { return static_cast<std::int64_t>(sequences_.size()); }

 private:
  void pass(const models::Decoder& decoder, std::int64_t sequence, const Run& options, bool inject);

  const models::Decoder& decoder_;
  std::vector<std::vector<std::int32_t>> sequences_;
  std::vector<std::int64_t> first_;  ///< first row of each sequence
  Exec& exec_;
  std::int64_t tokens_ = 0, hidden_ = 0;
  ScratchArray activations_;
};

}  // namespace nibble
