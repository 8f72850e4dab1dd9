// Register-only loops for the peak of bf16 arithmetic (x86-64). Compiled with AMX and AVX-512 flags, run by what the
// machine has.
#include <immintrin.h>

#include <cstdint>

#include "device/cpu/isa.h"
#include "machine_limits.h"

namespace nibble::bench {
namespace {

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
};

constexpr std::int64_t kRounds = 400000;

void amx_rounds(std::int64_t rounds) {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
  for (std::int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
}

/// 24 independent accumulators hide the latency.
void dot_rounds(std::int64_t rounds) {
  for (std::int64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "vdpbf16ps %%zmm30,%%zmm31,%%zmm0\n vdpbf16ps %%zmm30,%%zmm31,%%zmm1\n vdpbf16ps %%zmm30,%%zmm31,%%zmm2\n"
        "vdpbf16ps %%zmm30,%%zmm31,%%zmm3\n vdpbf16ps %%zmm30,%%zmm31,%%zmm4\n vdpbf16ps %%zmm30,%%zmm31,%%zmm5\n"
        "vdpbf16ps %%zmm30,%%zmm31,%%zmm6\n vdpbf16ps %%zmm30,%%zmm31,%%zmm7\n vdpbf16ps %%zmm30,%%zmm31,%%zmm8\n"
        "vdpbf16ps %%zmm30,%%zmm31,%%zmm9\n vdpbf16ps %%zmm30,%%zmm31,%%zmm10\n vdpbf16ps %%zmm30,%%zmm31,%%zmm11\n" ::
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
  }
}

template <class F>
double rate(ThreadPool& pool, Clock clock, double flops_per_round, F&& f) {
  pool.run(pool.size(), 1, [&](std::int64_t, std::int64_t, int) { f(kRounds / 10); });
  const double start = clock();
  pool.run(pool.size(), 1, [&](std::int64_t, std::int64_t, int) { f(kRounds); });
  return flops_per_round * static_cast<double>(kRounds) * pool.size() / (clock() - start) / 1e9;
}

}  // namespace

double bf16_peak(ThreadPool& pool, Clock clock) {
  if (has(CpuIsa::amx)) return rate(pool, clock, 4 * 2 * 16 * 16 * 32, amx_rounds);
  if (__builtin_cpu_supports("avx512bf16") != 0) return rate(pool, clock, 12 * 64, dot_rounds);
  if (__builtin_cpu_supports("avx512f") != 0) return rate(pool, clock, 12 * 32, fma512_rounds);
  if (__builtin_cpu_supports("fma") != 0) return rate(pool, clock, 12 * 16, fma256_rounds);
  return 0;
}

const char* bf16_unit() {
  if (has(CpuIsa::amx)) return "AMX";
  if (__builtin_cpu_supports("avx512bf16") != 0) return "AVX512-BF16";
  return __builtin_cpu_supports("fma") != 0 ? "f32 FMA" : "none";
}

}  // namespace nibble::bench
