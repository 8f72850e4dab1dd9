// Lists of module names and patterns as Transformers reads them ("modules not to convert"): a pattern means a module
// when, as a regular expression, it matches the full name from its start up to a "." or the end, or when the full name
// ends with the pattern's text.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::quant {

class NamePatterns {
 public:
  NamePatterns() = default;
  /// `where` (file and field) begins messages: Error(bad_input) when a pattern is not a regular expression or is
  /// absurdly long.
  NamePatterns(std::vector<std::string> patterns, std::string_view where);
  /// A name on which a pattern's search gets out of hand counts as not matched.
  bool matches(std::string_view name) const;
  const std::vector<std::string>& texts() const { return texts_; }

 private:
  struct Compiled;
  std::vector<std::string> texts_;
  std::vector<std::shared_ptr<const Compiled>> compiled_;
};

}  // namespace nibble::quant
