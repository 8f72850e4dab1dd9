#include "text/pattern.h"

#include "base/error.h"
#include "text/unicode.h"

namespace nibble::text {

Pattern::Finder::Finder(const Pattern& pattern) : pattern_(pattern) {
  if (pattern.regex_) matcher_.emplace(*pattern.regex_);
}

void Pattern::Finder::start(std::string_view text) {
  text_ = text;
  from_ = 0;
  last_end_.reset();
}

std::optional<Range> Pattern::Finder::search(std::size_t from) {
  if (matcher_) return matcher_->find(text_, from);
  if (pattern_.literal_.empty()) return std::nullopt;
  const std::size_t found = text_.find(pattern_.literal_, from);
  if (found == std::string_view::npos) return std::nullopt;
  return Range{found, found + pattern_.literal_.size()};
}

std::optional<Range> Pattern::Finder::next() {
  while (from_ <= text_.size()) {
    const std::optional<Range> found = search(from_);
    if (!found) break;
    if (found->begin == found->end) {
      const std::size_t step = found->end < text_.size() ? char_at(text_, found->end).size : 1;
      from_ = found->end + step;
      if (last_end_ == found->end) continue;
    } else {
      from_ = found->end;
    }
    last_end_ = found->end;
    return found;
  }
  from_ = text_.size() + 1;
  return std::nullopt;
}

std::string Pattern::replace(std::string_view text, std::string_view content) const {
  Finder finder(*this);
  finder.start(text);
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  std::size_t done = 0;
  while (const auto match = finder.next()) {
    out.append(text.substr(done, match->begin - done));
    out.append(content);
    done = match->end;
  }
  out.append(text.substr(done));
  return out;
}

Pattern read_pattern(const Json& json, const std::string& where) {
  const Json* pattern = json.get("pattern");
  if (pattern == nullptr) throw bad_input(where, ": no pattern");
  const std::string here = where + ".pattern";
  if (pattern->is_string()) return Pattern(pattern->string(here));
  if (const Json* regex = pattern->get("Regex")) return Pattern(Regex(regex->string(here), here));
  if (const Json* literal = pattern->get("String")) return Pattern(literal->string(here));
  throw bad_input(here, ": neither {\"String\": ...} nor {\"Regex\": ...}");
}

}  // namespace nibble::text
