#include "text/precompiled.h"

#include <array>

#include "base/error.h"
#include "text/unicode.h"

namespace nibble::text {
namespace {

std::string decode_base64(std::string_view text, const std::string& where) {
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : text) {
    int value = -1;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    if (c >= 'a' && c <= 'z') value = c - 'a' + 26;
    if (c >= '0' && c <= '9') value = c - '0' + 52;
    if (c == '+') value = 62;
    if (c == '/') value = 63;
    if (c == '=') break;
    if (value < 0) throw bad_input(where, ": not base64");
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    held += 6;
    if (held >= 8) {
      held -= 8;
      out.push_back(static_cast<char>(bits >> held & 0xff));
    }
  }
  return out;
}

// Bits of a Darts-clone unit.
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) == 1; }
std::uint32_t leaf_value(std::uint32_t unit) { return unit & 0x7fffffffU; }
std::uint32_t label_of(std::uint32_t unit) { return unit & (0x80000000U | 0xff); }
std::uint32_t offset_of(std::uint32_t unit) { return unit >> 10 << ((unit & (1U << 9)) >> 6); }

}  // namespace

Precompiled::Precompiled(std::string_view base64, const std::string& where) {
  const std::string blob = decode_base64(base64, where);
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (int i = 3; i >= 0; --i)
      value = value << 8 | static_cast<unsigned char>(blob[at + static_cast<std::size_t>(i)]);
    return value;
  };
  if (blob.empty()) return;
  if (blob.size() < 4) throw bad_input(where, ": ", blob.size(), " bytes are no character map");
  const std::size_t trie = word(0);
  if (trie > blob.size() - 4 || trie % 4 != 0) {
    throw bad_input(where, ": trie of ", trie, " bytes in a character map of ", blob.size());
  }
  for (std::size_t at = 4; at < 4 + trie; at += 4) units_.push_back(word(at));
  texts_ = blob.substr(4 + trie);
  if (!utf8_valid(texts_)) throw bad_input(where, ": replacement texts are not UTF-8");
}

/// The library takes the first (shortest) entry that `chunk` begins with, and lets it replace the whole chunk.
std::optional<std::string_view> Precompiled::replacement(std::string_view chunk) const {
  if (units_.empty()) return std::nullopt;
  std::size_t node = offset_of(units_[0]);
  for (const char byte : chunk) {
    const auto key = static_cast<unsigned char>(byte);
    if (key == 0) return std::nullopt;
    node ^= key;
    if (node >= units_.size() || label_of(units_[node]) != key) return std::nullopt;
    const bool leaf = has_leaf(units_[node]);
    node ^= offset_of(units_[node]);
    if (!leaf) continue;
    if (node >= units_.size()) return std::nullopt;
    const std::size_t begin = leaf_value(units_[node]);
    if (begin >= texts_.size()) return std::nullopt;
    const std::string_view rest = std::string_view(texts_).substr(begin);
    if ((static_cast<unsigned char>(rest[0]) & 0xc0) == 0x80) return std::nullopt;
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

void Precompiled::append(std::string& out, std::string_view grapheme) const {
  if (grapheme.size() < 6) {
    if (const auto whole = replacement(grapheme)) {
      out += *whole;
      return;
    }
  }
  for (std::size_t at = 0; at < grapheme.size();) {
    const std::string_view character = grapheme.substr(at, char_at(grapheme, at).size);
    out += replacement(character).value_or(character);
    at += character.size();
  }
}

std::string Precompiled::apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for_each_grapheme(text, [&](std::string_view grapheme) { append(out, grapheme); });
  return out;
}

}  // namespace nibble::text
