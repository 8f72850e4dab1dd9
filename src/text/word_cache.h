// Remembers the ids of words already encoded, during one encode() call: natural text repeats its words, and looking one
// up is ten times cheaper than merging it again. Belongs to one thread and is bounded in memory.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

class WordCache {
 public:
  static constexpr std::size_t kMaxWord = 96;  ///< longer words are not worth keeping

  /// Appends the ids of a word that put() kept; false when it is not there.
  bool get(std::string_view word, std::vector<std::int32_t>& ids) const;
  void put(std::string_view word, std::span<const std::int32_t> ids);

 private:
  struct Entry {
    std::uint64_t hash;
    std::uint32_t word_begin, word_size;
    std::uint32_t ids_begin, ids_size;
  };
  void clear(std::size_t slots);
  void grow();

  std::vector<std::uint32_t> slots_;  ///< entry index + 1, 0 for empty
  std::vector<Entry> entries_;
  std::string bytes_;
  std::vector<std::int32_t> ids_;
};

}  // namespace nibble::text
