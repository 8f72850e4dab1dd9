#include "base/utf8.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(Utf8, EveryScalarValueComesBack) {
  std::string all;
  for (char32_t code = 0; code <= 0x10ffff; ++code) {
    if (code >= 0xd800 && code <= 0xdfff) continue;
    std::string text;
    utf8_append(text, code);
    ASSERT_EQ(text.size(), code < 0x80 ? 1U : code < 0x800 ? 2U : code < 0x10000 ? 3U : 4U);
    ASSERT_EQ(utf8_length(text), text.size());
    ASSERT_EQ(utf8_decode(text, text.size()), code);
    ASSERT_EQ(utf8_length(std::string_view(text).substr(0, text.size() - 1)), 0U) << "cut short";
    if (code % 257 == 0) all += text;
  }
  EXPECT_TRUE(utf8_valid(all));
  EXPECT_EQ(utf8_replace_invalid(all), all);
}

TEST(Utf8, SequencesOfTwoBytesAgreeWithTheDefinition) {
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      const std::string text{static_cast<char>(a), static_cast<char>(b)};
      const bool two = a >= 0xc2 && a <= 0xdf && b >= 0x80 && b <= 0xbf;
      ASSERT_EQ(utf8_valid(text), two || (a < 0x80 && b < 0x80)) << a << ' ' << b;
    }
  }
}

TEST(Utf8, InvalidSequencesAreReplacedAsPythonDoes) {
  // bytes.decode("utf-8", errors="replace") of CPython: one U+FFFD per maximal subpart.
  const std::string r = "\xef\xbf\xbd";
  const std::pair<std::string, std::string> cases[] = {
      {"a\x80z", "a" + r + "z"},
      {"\xc0\x80", r + r},
      {"\xe0\x80\x80", r + r + r},
      {"\xed\xa0\x80", r + r + r},
      {"\xf0\x9f\x98", r},
      {"\xf0\x9f\x98x", r + "x"},
      {"\xf4\x90\x80\x80", r + r + r + r},
      {"\xf5\x80", r + r},
      {"\xe6\xbc\xe6\xbc\xa2", r + "\xe6\xbc\xa2"},
      {"\xff\xfe", r + r},
      {"", ""},
  };
  for (const auto& [bytes, wanted] : cases) {
    EXPECT_EQ(utf8_replace_invalid(bytes), wanted);
    EXPECT_EQ(utf8_valid(bytes), bytes == wanted);
  }
  EXPECT_EQ(utf8_first_invalid("ab\xff"), 2U);
  EXPECT_EQ(utf8_first_invalid("abc"), 3U);
}

}  // namespace
}  // namespace nibble
