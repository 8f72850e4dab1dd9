// One matrix product per layout and number of tokens (Google Benchmark). Each iteration takes the next of several
// matrices, so that weights come from memory as in a model. Counters: bytes of weights read per second, and operations
// per second.
#include <benchmark/benchmark.h>

#include "chain.h"

namespace nibble::bench {
namespace {

constexpr std::int64_t kRows = 5632, kCols = 2048, kCopies = 24;

void product(benchmark::State& state, const std::string& kind, std::int64_t m, DType compute) {
  static ThreadPool pool;
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = compute};
  std::vector<QTensor> weights;
  for (std::int64_t i = 0; i < kCopies; ++i) weights.push_back(random_weight(kind, kRows, kCols, exec));
  const std::vector<float> x(static_cast<std::size_t>(m * kCols), 0.5F);
  std::vector<float> y(static_cast<std::size_t>(m * kRows));
  std::size_t next = 0;
  for (auto _ : state) {
    matmul(weights[next++ % weights.size()], {.x = x.data(), .m = m, .ldx = kCols, .y = y.data(), .ldy = kRows}, exec);
    benchmark::DoNotOptimize(y.data());
  }
  using benchmark::Counter;
  const auto iterations = static_cast<double>(state.iterations());
  state.counters["weights"] =
      Counter(iterations * static_cast<double>(weights[0].size_bytes()), Counter::kIsRate, Counter::OneK::kIs1000);
  state.counters["ops"] =
      Counter(iterations * 2 * static_cast<double>(m * kRows * kCols), Counter::kIsRate, Counter::OneK::kIs1000);
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  using nibble::DType;
  for (const char* kind : {"bf16", "f16", "f32", "int8", "float8", "int4", "int2", "int3"}) {
    for (const std::int64_t m : {1, 2, 4, 8, 16, 64, 512}) {
      const DType compute = std::string(kind) == "f32"   ? DType::f32
                            : std::string(kind) == "f16" ? DType::f16
                                                         : DType::bf16;
      benchmark::RegisterBenchmark((std::string(kind) + "/" + std::to_string(m)).c_str(),
                                   [=](benchmark::State& state) { nibble::bench::product(state, kind, m, compute); })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
