// A trie over byte strings in two flat arrays, built once from sorted keys: finds all keys that a text begins with.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::text {

class ByteTrie {
 public:
  /// `keys`: (string, value) in any order; of equal strings the last one's value stays.
  explicit ByteTrie(std::vector<std::pair<std::string_view, std::int32_t>> keys);

  /// Calls visit(bytes, value) for every key that `text` begins with, shortest first.
  template <class Visit>
  void prefixes_of(std::string_view text, Visit visit) const {
    std::uint32_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) return;
      if (nodes_[node].value >= 0) visit(i + 1, nodes_[node].value);
    }
  }

 private:
  struct Node {
    std::uint32_t first = 0;  ///< children are neighbours, in order of their labels
    std::uint16_t children = 0;
    std::uint8_t label = 0;
    std::int32_t value = -1;
  };
  std::uint32_t child(std::uint32_t node, std::uint8_t label) const;

  std::vector<Node> nodes_;
};

}  // namespace nibble::text
