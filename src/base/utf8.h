// UTF-8: validation and decoding (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble {

/// Bytes (1 to 4) of the valid UTF-8 character that `text` begins with; 0 when it begins with none.
std::size_t utf8_length(std::string_view text);

/// The code point of the valid character of `length` bytes (from utf8_length) at the beginning of `text`.
char32_t utf8_decode(std::string_view text, std::size_t length);

/// Appends `code_point` (a valid scalar value) to `out`.
void utf8_append(std::string& out, char32_t code_point);

/// Whether the whole text is valid.
bool utf8_valid(std::string_view text);

/// Offset of the first invalid byte; text.size() when there is none.
std::size_t utf8_first_invalid(std::string_view text);

/// Copy with each invalid byte sequence replaced by U+FFFD, as Python's errors="replace" does (maximal subparts).
std::string utf8_replace_invalid(std::string_view text);

}  // namespace nibble
