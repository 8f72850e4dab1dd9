#include "text/vocabulary.h"

#include <algorithm>

#include "text/hash.h"

namespace nibble::text {

void Vocabulary::rehash(std::size_t slots) {
  slots_.assign(slots, 0);
  const std::size_t mask = slots - 1;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    std::size_t at = hash_bytes(text_of(entries_[i])) & mask;
    while (slots_[at] != 0) at = (at + 1) & mask;
    slots_[at] = static_cast<std::uint32_t>(i + 1);
  }
}

void Vocabulary::reserve(std::size_t tokens) {
  std::size_t slots = 16;
  while (slots < tokens * 2) slots *= 2;
  entries_.reserve(tokens);
  if (slots > slots_.size()) rehash(slots);
}

bool Vocabulary::add(std::string_view token, std::int32_t id) {
  if ((entries_.size() + 1) * 2 > slots_.size()) rehash(slots_.empty() ? 16 : slots_.size() * 2);
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash_bytes(token) & mask;
  for (; slots_[at] != 0; at = (at + 1) & mask) {
    if (text_of(entries_[slots_[at] - 1]) == token) return false;
  }
  entries_.push_back({bytes_.size(), static_cast<std::uint32_t>(token.size()), id});
  bytes_.append(token);
  slots_[at] = static_cast<std::uint32_t>(entries_.size());
  max_id_ = std::max(max_id_, id);
  return true;
}

std::optional<std::pair<std::size_t, std::size_t>> Vocabulary::index_ids() {
  dense_.clear();
  by_id_.clear();
  std::optional<std::pair<std::size_t, std::size_t>> twice;
  if (static_cast<std::size_t>(max_id_ + 1) <= entries_.size() * 4 + 1024) {
    dense_.assign(static_cast<std::size_t>(max_id_ + 1), 0);
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      std::uint32_t& slot = dense_[static_cast<std::size_t>(entries_[i].id)];
      if (slot != 0) {
        if (!twice) twice = {slot - 1, i};
      } else {
        slot = static_cast<std::uint32_t>(i + 1);
      }
    }
    return twice;
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) by_id_.push_back(static_cast<std::uint32_t>(i));
  std::stable_sort(by_id_.begin(), by_id_.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return entries_[a].id < entries_[b].id; });
  const auto same = std::adjacent_find(
      by_id_.begin(), by_id_.end(), [&](std::uint32_t a, std::uint32_t b) { return entries_[a].id == entries_[b].id; });
  if (same != by_id_.end()) twice = {same[0], same[1]};
  return twice;
}

std::int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash_bytes(token) & mask; slots_[at] != 0; at = (at + 1) & mask) {
    const Entry& entry = entries_[slots_[at] - 1];
    if (text_of(entry) == token) return entry.id;
  }
  return -1;
}

std::optional<std::string_view> Vocabulary::token(std::int32_t id) const {
  if (id < 0 || id > max_id_) return std::nullopt;
  if (!dense_.empty()) {
    const std::uint32_t slot = dense_[static_cast<std::size_t>(id)];
    if (slot == 0) return std::nullopt;
    return text_of(entries_[slot - 1]);
  }
  const auto found = std::lower_bound(by_id_.begin(), by_id_.end(), id, [&](std::uint32_t index, std::int32_t want) {
    return entries_[index].id < want;
  });
  if (found == by_id_.end() || entries_[*found].id != id) return std::nullopt;
  return text_of(entries_[*found]);
}

}  // namespace nibble::text
