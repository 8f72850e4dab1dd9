#include "base/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

/// How long a waiter spins before it sleeps in the kernel: some times the cost of a sleep and a wake-up, and longer
/// than the serial work between two products of a small model. By the clock, because a pause takes 40 to 140 cycles.
constexpr std::chrono::microseconds kSpinTime{50};

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Spins until done() or for kSpinTime; whether it is done.
template <class Done>
bool spin_until(const Done& done) {
  if (done()) return true;
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 16; ++i) {
      pause_cpu();
      if (done()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
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
      if (!spin_until([&] { return round.load(std::memory_order_acquire) != seen; })) {
        round.wait(seen, std::memory_order_acquire);
      }
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
  if (spin_until([&] { return s.busy.load(std::memory_order_acquire) == 0; })) return;
  for (std::int32_t left = s.busy.load(std::memory_order_acquire); left != 0;) {
    s.busy.wait(left, std::memory_order_acquire);
    left = s.busy.load(std::memory_order_acquire);
  }
}

}  // namespace nibble
