// Regular expressions of tokenizer.json (Oniguruma's Ruby dialect) run by PCRE2 with JIT, in UTF mode with Unicode
// properties. The pattern is translated first: \s, \w, \u, {n,m}+ and line anchors mean different things in the two.
#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace nibble::text {

/// A half-open range of bytes.
struct Range {
  std::size_t begin;
  std::size_t end;
};

class Regex {
 public:
  /// Throws Error(bad_input) beginning with `where` when the pattern is not one.
  Regex(std::string_view pattern, std::string_view where);

  /// Working memory for matching: one per thread of use.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    /// First match that begins at or after `from` of a valid UTF-8 text. Throws Error(bad_input) when the expression
    /// exceeds its match limit (catastrophic backtracking).
    std::optional<Range> find(std::string_view text, std::size_t from);

   private:
    struct Free {
      void operator()(void* data) const;
    };
    const Regex& regex_;
    std::unique_ptr<void, Free> data_;
  };

 private:
  friend class Matcher;
  struct State;
  std::shared_ptr<const State> state_;
};

/// The pattern in PCRE2's dialect (exposed for tests).
std::string translate_regex(std::string_view pattern);

}  // namespace nibble::text
