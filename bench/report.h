// Medians and table lines of the benchmark programs.
#pragma once
#include <string>
#include <vector>

namespace nibble::bench {

struct Spread {
  double median = 0, lowest = 0, highest = 0;
};

Spread spread_of(std::vector<double> values);

/// "12.3 [11.9-12.8]".
std::string to_text(const Spread& spread, int digits);

/// The value of `--name` in the arguments, or `otherwise`.
std::string option(int argc, char** argv, const std::string& name, const std::string& otherwise);

}  // namespace nibble::bench
