// Speed of encode() on one long text:
//   tokenizer_bench MODEL TEXT [REPETITIONS]    one line per repetition: seconds, then tokens and MB/s of the median
// tools/tokenizer_speed.py runs it interleaved with the Rust tokenizers package.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer.h"

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int run(const std::string& model, const std::string& file, int repetitions) {
  const auto opening = std::chrono::steady_clock::now();
  const auto tokenizer = nibble::Tokenizer::open(model);
  std::cout << "open " << seconds_since(opening) << '\n';
  const std::string text = nibble::read_file(file);
  std::vector<double> times;
  std::vector<std::int32_t> ids;
  for (int i = 0; i < repetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    ids = tokenizer->encode(text);
    times.push_back(seconds_since(start));
    std::cout << "encode " << times.back() << '\n';
  }
  const auto start = std::chrono::steady_clock::now();
  const std::string back = tokenizer->decode(ids, true);
  std::cout << "decode " << seconds_since(start) << '\n';
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  std::cout << "tokens " << ids.size() << "\nmedian " << median << " s, "
            << static_cast<double>(text.size()) / 1e6 / median << " MB/s, " << back.size() << " bytes back\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tokenizer_bench MODEL TEXT [REPETITIONS]\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2], argc > 3 ? std::max(1, std::atoi(argv[3])) : 5);
  } catch (const std::exception& error) {
    std::cerr << "tokenizer_bench: " << error.what() << '\n';
    return 1;
  }
}
