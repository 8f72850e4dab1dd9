#include "cli/bench_run.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fstream>

#include "base/error.h"
#include "base/process_memory.h"
#include "base/rng.h"
#include "cli/common.h"

namespace nibble::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::int64_t kMaxValue = std::int64_t{1} << 24;
constexpr std::size_t kMaxValues = 1000;

/// Lets the kernel's high-water mark start again; where that is not allowed, peaks are those of the whole process.
void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// The sequences of one run, closed at its end.
class Sequences {
 public:
  Sequences(Model& model, std::int64_t count) : model_(model) {
    for (std::int64_t i = 0; i < count; ++i) ids_.push_back(model.open_sequence());
  }
  ~Sequences() {
    for (const std::int64_t id : ids_) model_.close_sequence(id);
  }
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;

  /// Feeds `count` random tokens to every sequence; logits of the last only, as generation needs.
  void feed(std::int64_t count, Rng& rng, Exec& exec) {
    if (count == 0) return;
    tokens_.resize(static_cast<std::size_t>(count) * ids_.size());
    const auto vocab = static_cast<std::uint64_t>(model_.info().vocab_size);
    for (std::int32_t& token : tokens_) token = static_cast<std::int32_t>(rng.next() % vocab);
    items_.clear();
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      BatchItem& item = items_.emplace_back();
      item.sequence = ids_[i];
      item.ids = std::span<const std::int32_t>(tokens_).subspan(i * static_cast<std::size_t>(count),
                                                                static_cast<std::size_t>(count));
    }
    model_.forward(items_, logits_, exec);
  }

 private:
  Model& model_;
  std::vector<std::int64_t> ids_;
  std::vector<std::int32_t> tokens_;
  std::vector<BatchItem> items_;
  std::vector<float> logits_;
};

/// Nanoseconds of one repetition.
double run_once(Model& model, const BenchCase& what, Exec& exec) {
  Rng rng(1);
  Sequences sequences(model, what.batch);
  sequences.feed(what.depth, rng, exec);
  const auto start = Clock::now();
  sequences.feed(what.prompt, rng, exec);
  for (std::int64_t i = 0; i < what.generate; ++i) sequences.feed(1, rng, exec);
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

std::int64_t number_of(const std::string& flag, std::string_view text, std::int64_t least) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > kMaxValue)
    throw bad_input(flag, ": ", printable(text), " is no number from ", least, " to ", kMaxValue);
  return value;
}

/// One part between commas: a number or a range.
void add_part(const std::string& flag, std::string_view part, std::int64_t least, std::vector<std::int64_t>& values) {
  const std::size_t dash = part.find('-', 1);
  if (dash == std::string_view::npos) {
    values.push_back(number_of(flag, part, least));
    return;
  }
  const std::size_t sign = part.find_first_of("+*", dash);
  const std::int64_t first = number_of(flag, part.substr(0, dash), least);
  const std::int64_t last = number_of(flag, part.substr(dash + 1, sign - dash - 1), least);
  const bool multiply = sign != std::string_view::npos && part[sign] == '*';
  const std::int64_t step =
      sign == std::string_view::npos ? 1 : number_of(flag, part.substr(sign + 1), multiply ? 2 : 1);
  if (multiply && first < 1) throw bad_input(flag, ": ", printable(part), ": a range with * must begin above 0");
  for (std::int64_t value = first; value <= last; value = multiply ? value * step : value + step) {
    if (values.size() >= kMaxValues) throw bad_input(flag, ": more than ", kMaxValues, " values");
    values.push_back(value);
  }
}

}  // namespace

std::string BenchCase::name() const {
  std::string out;
  if (prompt > 0) out += "pp" + std::to_string(prompt);
  if (generate > 0) out += (out.empty() ? "tg" : "+tg") + std::to_string(generate);
  if (depth > 0) out += " @ d" + std::to_string(depth);
  return out;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double BenchResult::mean_ns() const { return mean_of(ns); }
double BenchResult::deviation_ns() const { return deviation_of(ns); }
double BenchResult::mean_speed() const { return mean_of(speeds()); }
double BenchResult::deviation_speed() const { return deviation_of(speeds()); }

std::vector<double> BenchResult::speeds() const {
  std::vector<double> out;
  for (const double time_ns : ns) out.push_back(static_cast<double>(what.tokens()) * 1e9 / time_ns);
  return out;
}

BenchResult run_bench(Model& model, const BenchCase& what, int repetitions, bool warmup, Exec& exec) {
  const std::int64_t context = model.info().context_length;
  const std::int64_t needed = what.depth + what.prompt + what.generate;
  if (context > 0 && needed > context)
    throw bad_input("test ", what.name(), " needs ", needed, " positions, but the model's context is ", context);
  BenchResult result{.what = what};
  if (warmup) {
    // As much as shows every kernel once; a whole long generation would only cost time.
    BenchCase first = what;
    first.depth = 0;
    first.generate = std::min<std::int64_t>(what.generate, 4);
    run_once(model, first, exec);
  }
  result.time = now_text();
  reset_peak();
  for (int i = 0; i < repetitions; ++i) result.ns.push_back(run_once(model, what, exec));
  result.peak_bytes = peak_resident_bytes();
  return result;
}

std::vector<std::int64_t> parse_values(const std::string& flag, const std::string& text, std::int64_t least) {
  std::vector<std::int64_t> values;
  std::string_view rest = text;
  while (true) {
    const std::size_t comma = rest.find(',');
    add_part(flag, rest.substr(0, comma), least, values);
    if (comma == std::string_view::npos) return values;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace nibble::cli
