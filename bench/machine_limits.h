// The machine's own limits, measured in the same run as what is compared with them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"

namespace nibble::bench {

/// Time since some start. `cpu_seconds` counts only the time that the calling thread ran: on a machine that others use
/// too, single-threaded programs are compared by it.
double seconds();
double cpu_seconds();
using Clock = double (*)();

/// Reads `bytes` of memory (more than all caches together should hold) with all threads of the pool.
class ReadBandwidth {
 public:
  explicit ReadBandwidth(Clock clock = &seconds, std::size_t bytes = std::size_t{1} << 30);
  ~ReadBandwidth();

  /// Tries access patterns (one or several streams, prefetch distances), each `repeats` times, and keeps the one with
  /// the best median.
  void tune(ThreadPool& pool, int repeats = 5);
  /// GB/s of one pass with the pattern kept.
  double measure(ThreadPool& pool) const;

 private:
  Clock clock_;
  std::size_t bytes_;
  char* memory_;
  int pattern_ = 0;
};

/// One pass over memory with 512-bit loads (x86-64 with AVX-512).
std::uint64_t read_wide(int pattern, const char* begin, std::size_t bytes);

/// 12 f32 multiply-adds of whole registers per round: 32 and 16 operations each.
void fma512_rounds(std::int64_t rounds);
void fma256_rounds(std::int64_t rounds);

/// GFLOP/s of products of bf16 with sums in f32, from registers: AMX tiles where there are any, else vdpbf16ps, else
/// f32 FMA.
double bf16_peak(ThreadPool& pool, Clock clock = &seconds);
/// What bf16_peak used: "AMX", "AVX512-BF16", "f32 FMA" or "none".
const char* bf16_unit();

}  // namespace nibble::bench
