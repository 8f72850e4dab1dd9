// AQLM's search on one layer: the part of the outputs' energy that is left after every round, and the time. FILE is a
// safetensors file with W [outputs, inputs] and XTX [inputs, inputs] (tools/aqlm_reference.py runs the original's
// algorithm on the same file).
//   nibble_aqlm_bench FILE [KxN] [in_group_size] [fast|standard|best] [threads]
#include <time.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "checkpoint/checkpoint.h"
#include "quant/aqlm/quantizer.h"
#include "quant/common/inverse_factor.h"

namespace nibble {
namespace {

double processor_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// tr(W G W').
double energy_of(const std::vector<float>& w, std::int64_t rows, const std::vector<float>& gram, Exec& exec) {
  const std::int64_t cols = static_cast<std::int64_t>(w.size()) / rows;
  std::vector<float> product(w.size());
  product_transposed({w.data(), rows, cols, gram.data(), cols, cols, product.data(), cols}, exec);
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) sum += static_cast<double>(w[i]) * static_cast<double>(product[i]);
  return sum;
}

int run(int argc, char** argv) {
  const auto argument = [&](int i, const char* otherwise) { return argc > i ? argv[i] : otherwise; };
  const auto file = Checkpoint::open(argument(1, ""));
  aqlm::Options options;
  options.group = std::atoll(argument(3, "8"));
  aqlm::parse_shape(argument(2, "2x8"), options);
  options.effort = aqlm::effort_of(aqlm::preset_from_name(argument(4, "standard")).value_or(aqlm::Preset::standard));
  ThreadPool pool(std::atoi(argument(5, "1")));
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = DType::f32};
  const std::vector<float> w = file->at("W").to_f32(), gram = file->at("XTX").to_f32();
  const std::int64_t rows = file->at("W").dim(0);
  const double energy = energy_of(w, rows, gram, exec), before = processor_seconds();
  const auto begin = std::chrono::steady_clock::now();
  const aqlm::Solution solved = aqlm::solve(w, rows, gram, options, exec);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (const double loss : solved.losses) std::printf("%.5f ", loss / energy);
  std::printf("\nleft %.5f after %zu rounds; %.2f s, processor %.2f s\n", solved.loss / energy,
              solved.losses.size() - 1, seconds, processor_seconds() - before);
  return 0;
}

}  // namespace
}  // namespace nibble

int main(int argc, char** argv) try { return nibble::run(argc, argv); } catch (const nibble::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return error.exit_code();
}
