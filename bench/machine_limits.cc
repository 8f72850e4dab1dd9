#include "machine_limits.h"

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "read_streams.h"

namespace nibble::bench {
double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

ReadBandwidth::ReadBandwidth(Clock clock, std::size_t bytes) : clock_(clock), bytes_(bytes) {
  constexpr std::size_t huge = std::size_t{1} << 21;
  void* memory = mmap(nullptr, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw runtime_failure("no memory for the bandwidth measurement: ", errno_text());
  memory_ = reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(memory) + huge - 1) / huge * huge);
  madvise(memory_, bytes, MADV_HUGEPAGE);
  std::memset(memory_, 1, bytes);
}

ReadBandwidth::~ReadBandwidth() { munmap(memory_, bytes_); }

double ReadBandwidth::measure(ThreadPool& pool) const {
  std::vector<std::uint64_t> sinks(static_cast<std::size_t>(pool.size()) * 8);
#if defined(__x86_64__)
  const auto read =
      __builtin_cpu_supports("avx512f") != 0 ? &read_wide : [](int pattern, const char* begin, std::size_t bytes) {
        return read_with(kPatterns[pattern], begin, bytes);
      };
#else
  const auto read = [](int pattern, const char* begin, std::size_t bytes) {
    return read_with(kPatterns[pattern], begin, bytes);
  };
#endif
  const auto lines = static_cast<std::int64_t>(bytes_ / 4096) - 1;  // prefetches stay inside
  const double start = clock_();
  pool.run(lines, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    sinks[static_cast<std::size_t>(worker) * 8] =
        read(pattern_, memory_ + begin * 4096, static_cast<std::size_t>(end - begin) * 4096);
  });
  const double time = clock_() - start;
  return static_cast<double>(lines) * 4096 / time / 1e9;
}

void ReadBandwidth::tune(ThreadPool& pool, int repeats) {
  int best = 0;
  double best_median = 0;
  for (pattern_ = 0; pattern_ < static_cast<int>(std::size(kPatterns)); ++pattern_) {
    std::vector<double> all;
    for (int r = 0; r < repeats; ++r) all.push_back(measure(pool));
    std::sort(all.begin(), all.end());
    if (all[all.size() / 2] > best_median) {
      best_median = all[all.size() / 2];
      best = pattern_;
    }
  }
  pattern_ = best;
}

}  // namespace nibble::bench
