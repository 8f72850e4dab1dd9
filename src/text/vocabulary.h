// Tokens and their ids: string -> id by a flat hash table, id -> string by a dense table when ids are dense and by
// binary search when they are not, so that one huge id costs nothing.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::text {

class Vocabulary {
 public:
  /// Makes room for `tokens` entries.
  void reserve(std::size_t tokens);

  /// Adds a token. False when the string is there already (nothing changes then).
  bool add(std::string_view token, std::int32_t id);

  /// Call once after the last add() and before token(): builds the reverse table. When two tokens have the same id,
  /// their indices are returned and the first stays.
  std::optional<std::pair<std::size_t, std::size_t>> index_ids();

  /// Id of a token, -1 when there is none.
  std::int32_t find(std::string_view token) const;
  /// The token of an id; nullopt when there is none. Valid while the vocabulary lives.
  std::optional<std::string_view> token(std::int32_t id) const;

  std::size_t size() const { return entries_.size(); }
  std::int32_t max_id() const { return max_id_; }  ///< -1 when empty
  std::string_view token_at(std::size_t index) const { return text_of(entries_[index]); }
  std::int32_t id_at(std::size_t index) const { return entries_[index].id; }

 private:
  struct Entry {
    std::uint64_t begin;
    std::uint32_t length;
    std::int32_t id;
  };
  std::string_view text_of(const Entry& entry) const { return {bytes_.data() + entry.begin, entry.length}; }
  void rehash(std::size_t slots);

  std::string bytes_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;  ///< entry index + 1, 0 for empty; power-of-two size
  std::vector<std::uint32_t> dense_;  ///< id -> entry index + 1
  std::vector<std::uint32_t> by_id_;  ///< entry indices sorted by id, when dense_ is not used
  std::int32_t max_id_ = -1;
};

}  // namespace nibble::text
