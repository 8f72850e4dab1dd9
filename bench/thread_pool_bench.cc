// What a parallel loop costs beyond its work: an empty run() back to back (the threads still spin) and after a pause
// (they sleep).
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/thread_pool.h"
#include "machine_limits.h"
#include "report.h"

namespace nibble::bench {
namespace {

double empty_runs(ThreadPool& pool, int count) {
  const double start = seconds();
  for (int i = 0; i < count; ++i) pool.run(pool.size(), 1, [](std::int64_t, std::int64_t, int) {});
  return (seconds() - start) / count * 1e6;
}

int run(int argc, char** argv) {
  ThreadPool pool(std::stoi(option(argc, argv, "threads", "0")));
  std::vector<double> busy, idle;
  empty_runs(pool, 1000);
  for (int r = 0; r < 21; ++r) busy.push_back(empty_runs(pool, 2000));
  for (int r = 0; r < 101; ++r) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    idle.push_back(empty_runs(pool, 1));
  }
  std::printf("| threads | back to back, us | after a pause of 2 ms, us |\n|---|---|---|\n| %d | %s | %s |\n",
              pool.size(), to_text(spread_of(busy), 2).c_str(), to_text(spread_of(idle), 1).c_str());
  return 0;
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) { return nibble::bench::run(argc, argv); }
