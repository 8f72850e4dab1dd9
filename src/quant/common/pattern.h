// A regular expression as quantization configs hold them (Python's re, which PCRE2 reads).
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace nibble {

class Pattern {
 public:
  /// `where` begins the messages. Throws Error(bad_input) when the text is no pattern.
  Pattern(std::string text, std::string where);

  /// Python's re.match: whether the pattern matches a prefix of `subject`. Throws Error(bad_input) when matching
  /// exceeds a limit of steps.
  bool matches_start(std::string_view subject) const;

  const std::string& text() const { return text_; }

 private:
  std::string text_, where_;
  std::shared_ptr<const void> code_;
};

}  // namespace nibble
