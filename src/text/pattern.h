// A {"String": ...} or {"Regex": ...} of tokenizer.json: what Split and Replace look for.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/regex.h"

namespace nibble::text {

class Pattern {
 public:
  explicit Pattern(std::string literal) : literal_(std::move(literal)) {}
  explicit Pattern(Regex regex) : regex_(std::move(regex)) {}

  /// Finds matches one after the other in one text, as find_iter of the regex libraries does: not overlapping, and no
  /// empty match right behind the match before.
  class Finder {
   public:
    explicit Finder(const Pattern& pattern);
    void start(std::string_view text);
    std::optional<Range> next();

   private:
    std::optional<Range> search(std::size_t from);
    const Pattern& pattern_;
    std::optional<Regex::Matcher> matcher_;
    std::string_view text_;
    std::size_t from_ = 0;
    std::optional<std::size_t> last_end_;
  };

  /// Every match replaced by `content` taken literally.
  std::string replace(std::string_view text, std::string_view content) const;

 private:
  friend class Finder;
  std::string literal_;
  std::optional<Regex> regex_;
};

/// From the member "pattern" of `json`; throws Error(bad_input) beginning with `where`.
Pattern read_pattern(const Json& json, const std::string& where);

}  // namespace nibble::text
