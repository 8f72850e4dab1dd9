// The "Precompiled" normalizer: sentencepiece's character map, a Darts double array over UTF-8 with the replacement
// texts.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

class Precompiled {
 public:
  /// From the base64 text of `precompiled_charsmap`; throws Error(bad_input) beginning with `where`.
  Precompiled(std::string_view base64, const std::string& where);

  /// The text with every grapheme (of fewer than 6 bytes) or else character that has an entry replaced by it.
  std::string apply(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view chunk) const;
  void append(std::string& out, std::string_view grapheme) const;

  std::vector<std::uint32_t> units_;
  std::string texts_;  ///< NUL-terminated replacements
};

}  // namespace nibble::text
