// The measurements behind `nibble bench`: prompt processing and token generation, timed without tokenization and
// sampling, as llama-bench does.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "device/device.h"
#include "run/model.h"

namespace nibble::cli {

/// One line of the table.
struct BenchCase {
  std::int64_t prompt = 0;    ///< tokens of the prompt, per sequence; 0: no prompt
  std::int64_t generate = 0;  ///< tokens generated one by one, per sequence
  std::int64_t depth = 0;     ///< positions already in the cache; not timed
  std::int64_t batch = 1;     ///< sequences computed together
  int threads = 0;

  /// "pp512", "tg128", "pp512+tg128", "tg128 @ d1024".
  std::string name() const;
  std::int64_t tokens() const { return (prompt + generate) * batch; }
};

struct BenchResult {
  BenchCase what;
  std::string time{};           ///< start, ISO 8601 in UTC
  std::vector<double> ns{};     ///< of each repetition
  std::int64_t peak_bytes = 0;  ///< most memory held during the test
  double mean_ns() const;
  double deviation_ns() const;         ///< sample standard deviation
  std::vector<double> speeds() const;  ///< tokens per second of each repetition
  double mean_speed() const;
  double deviation_speed() const;
};

/// Runs one case `repetitions` times, after one untimed run if `warmup`. Error(bad_input) when it does not fit the
/// model's context.
BenchResult run_bench(Model& model, const BenchCase& what, int repetitions, bool warmup, Exec& exec);

/// Numbers in llama-bench's notation: "512", "1,2,4", "1-8" (steps of 1), "128-512+128", "1-16*2". Error(bad_input)
/// naming `flag` for anything else, or values outside [least, 2^24].
std::vector<std::int64_t> parse_values(const std::string& flag, const std::string& text, std::int64_t least);

/// Mean and sample standard deviation.
double mean_of(const std::vector<double>& values);
double deviation_of(const std::vector<double>& values);

}  // namespace nibble::cli
