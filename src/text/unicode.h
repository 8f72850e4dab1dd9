// Unicode as the Rust crates behind Hugging Face tokenizers see it: character classes, per-character lower case,
// normalization forms and grapheme clusters. ICU stays inside unicode.cc. Texts are valid UTF-8.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/utf8.h"

namespace nibble::text {

/// One character of a text: where it begins, its bytes and its code point.
struct Char {
  std::size_t begin;
  std::size_t size;
  char32_t code;
};

/// The character that begins at `at` (< text.size()) of a valid UTF-8 text.
inline Char char_at(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0x80) return {at, 1, lead};
  const std::size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  return {at, size, utf8_decode(text.substr(at), size)};
}

/// The character that ends before `end` (> 0).
inline Char char_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return char_at(text, at);
}

bool is_whitespace(char32_t c);      ///< White_Space, as char::is_whitespace
bool is_numeric(char32_t c);         ///< Nd, Nl, No, as char::is_numeric
bool is_word(char32_t c);            ///< \w of the regex crate: Alphabetic, M, Nd, Pc, Join_Control
bool is_punctuation(char32_t c);     ///< ASCII punctuation or category P as of Unicode 8 (the unicode_categories crate)
bool is_combining_mark(char32_t c);  ///< category M, as the unicode-normalization crate of the library knows it
bool is_nonspacing_mark(char32_t c);  ///< category Mn as of Unicode 8
bool is_other(char32_t c);            ///< Cc, Cf, Co as of Unicode 8

/// Appends char::to_lowercase(c): full mapping, no context.
void append_lower(std::string& out, char32_t c);

/// A number for the script of a character (UScriptCode); Hiragana, Katakana and U+30FC count as Han, the space as
/// `script_any`: the grouping of sentencepiece that the UnicodeScripts pre-tokenizer uses.
int fixed_script(char32_t c);
inline constexpr int script_any = -1;

enum class Form { nfc, nfd, nfkc, nfkd };
/// The text in a normalization form.
std::string normalize(std::string_view text, Form form);

/// Calls `visit` with each extended grapheme cluster (UAX 29) in order.
void for_each_grapheme(std::string_view text, const std::function<void(std::string_view)>& visit);

/// The GPT-2 alphabet: each byte as one printable character (two UTF-8 bytes at most). Appends `bytes` so written.
void append_byte_level(std::string& out, std::string_view bytes);
/// The byte that a character of that alphabet stands for, -1 for any other character.
int byte_of_char(char32_t c);

}  // namespace nibble::text
