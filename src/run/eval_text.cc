#include "run/eval_text.h"

#include <array>
#include <utility>

#include "base/utf8.h"

namespace nibble {
namespace {

/// What \s matches in a Python str pattern.
bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/// Bytes of the white space character that `text` begins with; 0 when it begins with none.
std::size_t space_length(std::string_view text) {
  const std::size_t length = utf8_length(text);
  return length != 0 && is_space(utf8_decode(text, length)) ? length : 0;
}

std::string_view stripped(std::string_view text) {
  while (const std::size_t length = space_length(text)) text.remove_prefix(length);
  while (!text.empty()) {
    std::size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    if (space_length(text.substr(begin)) == 0) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  std::size_t at = 0;
  for (std::size_t found; (found = text.find(from, at)) != std::string_view::npos; at = found + from.size()) {
    out += text.substr(at, found - at);
    out += to;
  }
  out += text.substr(at);
  return out;
}

/// Drops the white space just inside each pair of `open` and the next `close`.
std::string tightened(std::string_view text, char open, char close) {
  std::string out;
  std::size_t at = 0;
  while (true) {
    const std::size_t begin = text.find(open, at);
    const std::size_t end = begin == std::string_view::npos ? begin : text.find(close, begin + 1);
    if (end == std::string_view::npos) break;
    out += text.substr(at, begin + 1 - at);
    out += stripped(text.substr(begin + 1, end - begin - 1));
    out += close;
    at = end + 1;
  }
  out += text.substr(at);
  return out;
}

/// Lines with their newlines; the last may have none.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::size_t length = end == std::string_view::npos ? text.size() : end + 1;
    lines.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return lines;
}

bool is_title(std::string_view line) {
  const std::string joined = replaced(replaced(line, "= = =", "==="), "= =", "==");
  const std::string_view bare = stripped(joined);
  return bare.starts_with("= ") && bare.ends_with(" =");
}

EvalDocument page_of(std::string page) {
  EvalDocument document;
  document.words = count_words(page);
  document.bytes = static_cast<std::int64_t>(page.size());
  document.text = detokenize_wikitext(std::move(page));
  return document;
}

std::vector<EvalDocument> pages_of(std::string_view raw) {
  std::vector<EvalDocument> pages;
  std::string page;
  for (std::string_view line : lines_of(raw)) {
    if (is_title(line)) {
      // The data set joins lines by newlines, so that a page does not end in one.
      if (page.ends_with('\n')) page.pop_back();
      if (!stripped(page).empty()) pages.push_back(page_of(page));
      page.clear();
    }
    page += line;
  }
  if (!stripped(page).empty()) pages.push_back(page_of(page));
  return pages;
}

}  // namespace

std::int64_t count_words(std::string_view text) {
  std::int64_t words = 1;
  bool in_space = false;
  while (!text.empty()) {
    const std::size_t space = space_length(text);
    if (space != 0 && !in_space) ++words;
    in_space = space != 0;
    text.remove_prefix(space != 0 ? space : std::max<std::size_t>(utf8_length(text), 1));
  }
  return words;
}

std::string detokenize_wikitext(std::string text) {
  using Rule = std::pair<std::string_view, std::string_view>;
  static constexpr std::array<Rule, 10> punctuation{Rule{"s '", "s'"}, {" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
                                                    {" : ", ": "},     {" ; ", "; "},  {" . ", ". "},  {" ! ", "! "},
                                                    {" ? ", "? "},     {" , ", ", "}};
  static constexpr std::array<std::pair<char, char>, 5> pairs{
      {{'(', ')'}, {'[', ']'}, {'{', '}'}, {'"', '"'}, {'\'', '\''}}};
  static constexpr std::array<Rule, 8> others{
      Rule{"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \xc2\xb0 ", "\xc2\xb0"},
      {" \n", "\n"},           {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
  for (const auto& [from, to] : punctuation) text = replaced(text, from, to);
  for (const auto& [open, close] : pairs) text = tightened(text, open, close);
  for (const auto& [from, to] : others) text = replaced(text, from, to);
  return text;
}

std::vector<EvalDocument> document_of(std::string text) {
  EvalDocument document;
  document.words = count_words(text);
  document.bytes = static_cast<std::int64_t>(text.size());
  document.text = std::move(text);
  return {std::move(document)};
}

std::vector<EvalDocument> documents_of_rows(std::span<const std::string> rows, RowJoin join) {
  if (join == RowJoin::documents) {
    std::vector<EvalDocument> documents;
    for (const std::string& row : rows) {
      if (!row.empty()) documents.push_back(document_of(row).front());
    }
    return documents;
  }
  std::string text;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (join == RowJoin::blank_lines && i > 0) text += "\n\n";
    text += join == RowJoin::marked_empty && rows[i].empty() ? " \n" : rows[i];
  }
  return document_of(std::move(text));
}

std::vector<EvalDocument> documents_of_wikitext(std::string_view raw, RowJoin join) {
  if (join == RowJoin::as_file) return document_of(std::string(raw));
  if (join == RowJoin::documents) return pages_of(raw);
  std::vector<std::string> rows;
  for (std::string_view line : lines_of(raw)) rows.emplace_back(stripped(line).empty() ? std::string_view() : line);
  return documents_of_rows(rows, join);
}

}  // namespace nibble
