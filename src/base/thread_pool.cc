#include "base/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

/// How long a waiter spins before it sleeps in the kernel: about the cost of a sleep and a wake-up (a few
/// microseconds).
constexpr int kSpins = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

}  // namespace

struct ThreadPool::State {
  struct Job {
    std::int64_t n = 0, grain = 1;
    RawBody call = nullptr;
    void* body = nullptr;
  };
  int size = 1;
  Job job;
  alignas(64) std::atomic<std::uint32_t> round{0};
  alignas(64) std::atomic<std::int32_t> busy{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;

  void work(const Job& j, int worker) const {
    const std::int64_t grains = (j.n + j.grain - 1) / j.grain;
    const std::int64_t begin = grains * worker / size * j.grain;
    const std::int64_t end = std::min(j.n, grains * (worker + 1) / size * j.grain);
    if (begin < end) j.call(j.body, begin, end, worker);
  }

  void loop(int worker) {
    std::uint32_t seen = 0;
    while (true) {
      for (int spin = 0; spin < kSpins && round.load(std::memory_order_acquire) == seen; ++spin) pause_cpu();
      round.wait(seen, std::memory_order_acquire);
      seen = round.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_relaxed)) return;
      work(job, worker);
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) busy.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 0 || threads > 4096) throw bad_input("threads: ", threads, " is not between 0 and 4096");
  state_->size = threads > 0 ? threads : usable_cores();
  for (int worker = 1; worker < state_->size; ++worker) {
    state_->threads.emplace_back([state = state_.get(), worker] { state->loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_relaxed);
  state_->round.fetch_add(1, std::memory_order_release);
  state_->round.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::size() const { return state_->size; }

void ThreadPool::run_raw(std::int64_t n, std::int64_t grain, RawBody call, void* body) {
  if (n <= 0) return;
  State& s = *state_;
  const State::Job job{n, std::max<std::int64_t>(1, grain), call, body};
  if (s.size == 1 || n <= job.grain) {
    call(body, 0, n, 0);
    return;
  }
  s.job = job;
  s.busy.store(s.size - 1, std::memory_order_relaxed);
  s.round.fetch_add(1, std::memory_order_release);
  s.round.notify_all();
  s.work(job, 0);
  std::int32_t left = s.busy.load(std::memory_order_acquire);
  for (int spin = 0; spin < kSpins && left != 0; ++spin) {
    pause_cpu();
    left = s.busy.load(std::memory_order_acquire);
  }
  while (left != 0) {
    s.busy.wait(left, std::memory_order_acquire);
    left = s.busy.load(std::memory_order_acquire);
  }
}

}  // namespace nibble
