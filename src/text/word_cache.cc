#include "text/word_cache.h"

#include "text/hash.h"

namespace nibble::text {
namespace {

constexpr std::size_t kFirstSlots = 1024;
constexpr std::size_t kMaxEntries = std::size_t{1} << 18;

}  // namespace

bool WordCache::get(std::string_view word, std::vector<std::int32_t>& ids) const {
  if (slots_.empty() || word.size() > kMaxWord) return false;
  const std::uint64_t hash = hash_bytes(word);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask; slots_[at] != 0; at = (at + 1) & mask) {
    const Entry& entry = entries_[slots_[at] - 1];
    if (entry.hash != hash || std::string_view(bytes_.data() + entry.word_begin, entry.word_size) != word) continue;
    ids.insert(ids.end(), ids_.begin() + entry.ids_begin, ids_.begin() + entry.ids_begin + entry.ids_size);
    return true;
  }
  return false;
}

void WordCache::put(std::string_view word, std::span<const std::int32_t> ids) {
  if (word.size() > kMaxWord) return;
  if (slots_.empty() || entries_.size() >= kMaxEntries) clear(slots_.empty() ? kFirstSlots : slots_.size());
  if (entries_.size() * 2 >= slots_.size()) grow();
  const std::uint64_t hash = hash_bytes(word);
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  while (slots_[at] != 0) at = (at + 1) & mask;
  entries_.push_back({hash, static_cast<std::uint32_t>(bytes_.size()), static_cast<std::uint32_t>(word.size()),
                      static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(ids.size())});
  slots_[at] = static_cast<std::uint32_t>(entries_.size());
  bytes_.append(word);
  ids_.insert(ids_.end(), ids.begin(), ids.end());
}

void WordCache::clear(std::size_t slots) {
  slots_.assign(slots, 0);
  entries_.clear();
  bytes_.clear();
  ids_.clear();
}

void WordCache::grow() {
  slots_.assign(slots_.size() * 2, 0);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    std::size_t at = entries_[i].hash & mask;
    while (slots_[at] != 0) at = (at + 1) & mask;
    slots_[at] = static_cast<std::uint32_t>(i + 1);
  }
}

}  // namespace nibble::text
