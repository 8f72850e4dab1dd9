// How fast weights are quantized: GB of float input per second for every type, in memory (no file is read or
// written), and beside it the rate at which the same bytes are merely read. The second figure counts the processor time
// of all threads instead of the clock: what the machine would give if nothing else ran on it.
//   nibble_quantize_bench [threads] [rows] [cols]
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "quant/bnb4/quantize.h"
#include "quant/bnb8/quantizer.h"
#include "quant/quanto/weights.h"

namespace nibble {
namespace {

struct Seconds {
  double clock = 1e9;
  double processor = 1e9;  ///< of all threads together
};

double processor_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Seconds seconds_of(const std::function<void()>& work) {
  Seconds best;
  for (int i = 0; i < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const double before = processor_seconds();
    work();
    best.processor = std::min(best.processor, processor_seconds() - before);
    best.clock = std::min(best.clock, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

/// Numbers like those of a layer: about normal, spread 0.02.
Tensor weights(std::int64_t rows, std::int64_t cols, DType dtype) {
  Tensor out({rows, cols}, dtype);
  std::uint64_t state = 1;
  for (std::int64_t i = 0; i < out.count(); ++i) {
    float sum = 0;
    for (int k = 0; k < 4; ++k) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      sum += static_cast<float>(state >> 40) * 0x1p-24F - 0.5F;
    }
    store_from_f32(dtype, out.data(), i, 0.035F * sum);
  }
  return out;
}

std::uint64_t read_all(const Tensor& tensor, ThreadPool& pool) {
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(pool.size()));
  const auto* words = reinterpret_cast<const std::uint64_t*>(tensor.data());
  pool.run(static_cast<std::int64_t>(tensor.view().size_bytes() / 8), 64,
           [&](std::int64_t begin, std::int64_t end, int worker) {
             std::uint64_t sum = 0;
             for (std::int64_t i = begin; i < end; ++i) sum += words[i];
             sums[static_cast<std::size_t>(worker)] = sum;
           });
  std::uint64_t all = 0;
  for (const std::uint64_t sum : sums) all += sum;
  return all;
}

void measure(DType dtype, std::int64_t rows, std::int64_t cols, ThreadPool& pool) {
  using quanto::QType;
  const Tensor w = weights(rows, cols, dtype);
  const double bytes = static_cast<double>(w.view().size_bytes());
  const auto print = [&](const std::string& what, const Seconds& seconds) {
    std::printf("| %-4s | %-14s | %6.2f | %16.2f |\n", std::string(name_of(dtype)).c_str(), what.c_str(),
                bytes / seconds.clock / 1e9, bytes * pool.size() / seconds.processor / 1e9);
    std::fflush(stdout);
  };
  std::uint64_t seen = 0;
  print("read", seconds_of([&] { seen += read_all(w, pool); }));
  for (const QType qtype : {QType::qint8, QType::qint4, QType::qint2, QType::qfloat8_e4m3fn, QType::qfloat8_e5m2}) {
    const quanto::WeightSpec spec{.qtype = qtype};
    print(std::string(quanto::name_of(qtype)), seconds_of([&] { quanto::quantize_weight(spec, w.view(), "w", pool); }));
  }
  const quanto::WeightSpec hqq{.qtype = QType::qint4, .optimizer = quanto::Optimizer::hqq};
  print("qint4 hqq", seconds_of([&] { quanto::quantize_weight(hqq, w.view(), "w", pool); }));
  for (const bnb4::WeightSpec& spec : {bnb4::WeightSpec{"nf4"}, bnb4::WeightSpec{"fp4"},
                                       bnb4::WeightSpec{.quant_type = "nf4", .double_quant = true}}) {
    print("bnb " + spec.quant_type + (spec.double_quant ? " double" : ""),
          seconds_of([&] { bnb4::quantize_weight(spec, w.view(), "w", pool); }));
  }
  print("llm-int8", seconds_of([&] { bnb8::quantize_weight(w.view(), "w", pool); }));
  if (seen == 42) std::printf("\n");  // the sums are used
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  const std::int64_t rows = argc > 2 ? std::atoll(argv[2]) : 4096, cols = argc > 3 ? std::atoll(argv[3]) : 11008;
  nibble::ThreadPool pool(threads);
  std::printf(
      "[%lld, %lld], %d threads\n\n| from | to             |   GB/s | GB/s undisturbed |\n"
      "| ---- | -------------- | -----: | ---------------: |\n",
      static_cast<long long>(rows), static_cast<long long>(cols), pool.size());
  for (const nibble::DType dtype : {nibble::DType::bf16, nibble::DType::f16, nibble::DType::f32}) {
    nibble::measure(dtype, rows, cols, pool);
  }
  return 0;
}
