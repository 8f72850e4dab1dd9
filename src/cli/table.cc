#include "cli/table.h"

#include <algorithm>
#include <cstdio>

namespace nibble::cli {
namespace {

/// Columns on a terminal: UTF-8 characters, counted by their first bytes.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](unsigned char byte) { return (byte & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t width, bool right) {
  const std::string space(width - width_of(text), ' ');
  return right ? space + text : text + space;
}

}  // namespace

std::string markdown_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    std::size_t width = std::max<std::size_t>(width_of(columns[c].title), 3);
    for (const auto& row : rows) width = std::max(width, width_of(row[c]));
    widths.push_back(width);
  }
  std::string out;
  for (std::size_t c = 0; c < columns.size(); ++c)
    out += "| " + padded(columns[c].title, widths[c], columns[c].right) + " ";
  out += "|\n";
  for (std::size_t c = 0; c < columns.size(); ++c)
    out += columns[c].right ? "| " + std::string(widths[c] - 1, '-') + ": " : "| " + std::string(widths[c], '-') + " ";
  out += "|\n";
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < columns.size(); ++c) out += "| " + padded(row[c], widths[c], columns[c].right) + " ";
    out += "|\n";
  }
  return out;
}

std::string csv_line(const std::vector<std::string>& fields) {
  std::string out;
  for (const std::string& field : fields) {
    if (!out.empty()) out += ',';
    out += '"';
    for (const char c : field) {
      if (c == '"') out += '"';
      out += c;
    }
    out += '"';
  }
  return out + "\n";
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string byte_text(double bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(units)) bytes /= 1024, ++unit;
  return fixed(bytes, unit == 0 ? 0 : 2) + " " + units[unit];
}

std::string count_text(double count) {
  if (count >= 1e9) return fixed(count / 1e9, 2) + " B";
  if (count >= 1e6) return fixed(count / 1e6, 2) + " M";
  if (count >= 1e3) return fixed(count / 1e3, 2) + " K";
  return fixed(count, 0);
}

}  // namespace nibble::cli
