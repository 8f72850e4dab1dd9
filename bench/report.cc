#include "report.h"

#include <algorithm>
#include <cstdio>

namespace nibble::bench {

Spread spread_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

std::string to_text(const Spread& s, int digits) {
  char text[96];
  std::snprintf(text, sizeof text, "%.*f [%.*f-%.*f]", digits, s.median, digits, s.lowest, digits, s.highest);
  return text;
}

std::string option(int argc, char** argv, const std::string& name, const std::string& otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == "--" + name) return argv[i + 1];
  }
  return otherwise;
}

}  // namespace nibble::bench
