#include "text/unicode.h"

#include <unicode/brkiter.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uscript.h>
#include <unicode/utext.h>

#include <array>
#include <memory>

#include "base/error.h"

namespace nibble::text {
namespace {

bool ascii_punctuation(char32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

std::uint32_t category(char32_t c) { return U_GET_GC_MASK(static_cast<UChar32>(c)); }

/// Whether the character was there in Unicode `version`: how tables of older crates are had from newer ones.
bool known_in(char32_t c, int version) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= version;
}

[[noreturn]] void icu_failed(const char* what, UErrorCode code) {
  throw runtime_failure("ICU: ", what, ": ", u_errorName(code));
}

const icu::Normalizer2& normalizer(Form form) {
  UErrorCode code = U_ZERO_ERROR;
  const icu::Normalizer2* found = nullptr;
  switch (form) {
    case Form::nfc: found = icu::Normalizer2::getNFCInstance(code); break;
    case Form::nfd: found = icu::Normalizer2::getNFDInstance(code); break;
    case Form::nfkc: found = icu::Normalizer2::getNFKCInstance(code); break;
    case Form::nfkd: found = icu::Normalizer2::getNFKDInstance(code); break;
  }
  if (U_FAILURE(code) != 0 || found == nullptr) icu_failed("no normalizer", code);
  return *found;
}

/// code point -> byte of the GPT-2 alphabet, and back.
struct ByteAlphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<std::int16_t, 324> of_char{};
  constexpr ByteAlphabet() {
    for (auto& byte : of_char) byte = -1;
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      of_byte[b] = printable ? b : next++;
      of_char[of_byte[b]] = static_cast<std::int16_t>(b);
    }
  }
};
constexpr ByteAlphabet kAlphabet;

}  // namespace

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_WHITE_SPACE) != 0;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return (category(c) & (U_GC_ND_MASK | U_GC_NL_MASK | U_GC_NO_MASK)) != 0;
}

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  return (category(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_ALPHABETIC) != 0 || c == 0x200c || c == 0x200d;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return ascii_punctuation(c);
  return (category(c) & U_GC_P_MASK) != 0 && known_in(c, 8);
}

bool is_combining_mark(char32_t c) { return c >= 0x300 && (category(c) & U_GC_M_MASK) != 0 && known_in(c, 9); }

bool is_nonspacing_mark(char32_t c) { return c >= 0x300 && (category(c) & U_GC_MN_MASK) != 0 && known_in(c, 8); }

bool is_other(char32_t c) {
  if (c < 0x80) return c < 0x20 || c == 0x7f;
  return (category(c) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK)) != 0 && known_in(c, 8);
}

void append_lower(std::string& out, char32_t c) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    return;
  }
  if (c == 0x130) {  // the one character whose full lower case is longer: i with a dot above
    out += "i\xcc\x87";
    return;
  }
  utf8_append(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
}

int fixed_script(char32_t c) {
  if (c == ' ') return script_any;
  if (c == 0x30fc) return USCRIPT_HAN;
  UErrorCode code = U_ZERO_ERROR;
  const UScriptCode script = uscript_getScript(static_cast<UChar32>(c), &code);
  if (script == USCRIPT_UNKNOWN) return script_any;  // unassigned and private use
  return script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA ? USCRIPT_HAN : script;
}

std::string normalize(std::string_view text, Form form) {
  const icu::Normalizer2& form_normalizer = normalizer(form);
  UErrorCode code = U_ZERO_ERROR;
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  form_normalizer.normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr,
                                code);
  if (U_FAILURE(code) != 0) icu_failed("normalization", code);
  return out;
}

void for_each_grapheme(std::string_view text, const std::function<void(std::string_view)>& visit) {
  UErrorCode code = U_ZERO_ERROR;
  std::unique_ptr<icu::BreakIterator> breaks(icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), code));
  if (U_FAILURE(code) != 0) icu_failed("grapheme iterator", code);
  UText* opened = utext_openUTF8(nullptr, text.data(), static_cast<std::int64_t>(text.size()), &code);
  if (U_FAILURE(code) != 0) icu_failed("grapheme text", code);
  breaks->setText(opened, code);
  utext_close(opened);
  if (U_FAILURE(code) != 0) icu_failed("grapheme text", code);
  std::int32_t begin = breaks->first();
  for (std::int32_t end = breaks->next(); end != icu::BreakIterator::DONE; begin = end, end = breaks->next()) {
    visit(text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
  }
}

void append_byte_level(std::string& out, std::string_view bytes) {
  for (const char byte : bytes) utf8_append(out, kAlphabet.of_byte[static_cast<unsigned char>(byte)]);
}

int byte_of_char(char32_t c) { return c < kAlphabet.of_char.size() ? kAlphabet.of_char[c] : -1; }

}  // namespace nibble::text
