#include "text/byte_trie.h"

#include <algorithm>

namespace nibble::text {

ByteTrie::ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> keys) : nodes_(1) {
  std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  struct Work {
    std::uint32_t node;
    std::size_t begin, end, depth;  // keys[begin, end) share their first `depth` bytes
  };
  std::vector<Work> queue{{0, 0, keys.size(), 0}};
  for (std::size_t next = 0; next < queue.size(); ++next) {
    Work work = queue[next];
    for (; work.begin < work.end && keys[work.begin].first.size() == work.depth; ++work.begin) {
      nodes_[work.node].value = keys[work.begin].second;
    }
    nodes_[work.node].first = static_cast<std::uint32_t>(nodes_.size());
    while (work.begin < work.end) {
      const char label = keys[work.begin].first[work.depth];
      std::size_t end = work.begin;
      while (end < work.end && keys[end].first[work.depth] == label) ++end;
      queue.push_back({static_cast<std::uint32_t>(nodes_.size()), work.begin, end, work.depth + 1});
      Node node;
      node.label = static_cast<std::uint8_t>(label);
      nodes_.push_back(node);
      ++nodes_[work.node].children;
      work.begin = end;
    }
  }
}

std::uint32_t ByteTrie::child(std::uint32_t node, std::uint8_t label) const {
  const auto begin = nodes_.begin() + nodes_[node].first;
  const auto end = begin + nodes_[node].children;
  const auto found = std::lower_bound(begin, end, label, [](const Node& a, std::uint8_t b) { return a.label < b; });
  return found == end || found->label != label ? 0 : static_cast<std::uint32_t>(found - nodes_.begin());
}

}  // namespace nibble::text
