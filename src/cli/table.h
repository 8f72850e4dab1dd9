// Results as tables: Markdown for people, CSV for spreadsheets.
#pragma once
#include <string>
#include <vector>

namespace nibble::cli {

struct Column {
  std::string title;
  bool right = false;  ///< align right (numbers)
};

/// A Markdown table whose columns are padded, so that it also reads well as plain text. Ends with a newline.
std::string markdown_table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows);

/// One CSV record (RFC 4180), every field quoted as llama-bench does; ends with a newline.
std::string csv_line(const std::vector<std::string>& fields);

/// "1.50 MiB": bytes in the binary unit that fits.
std::string byte_text(double bytes);

/// "6.82 M": a count in thousands, millions or billions.
std::string count_text(double count);

/// `value` with `digits` digits after the point.
std::string fixed(double value, int digits);

}  // namespace nibble::cli
