// A fixed set of threads for data-parallel loops. Work is split statically and no reduction is ever split, so a loop
// whose iterations are independent gives the same bits for any number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace nibble {

class ThreadPool {
 public:
  /// `threads` in all, the caller included; 0 means one per core that this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  /// Calls f(begin, end, worker) so that [0, n) is covered once: each worker (0 <= worker < size()) gets at most one
  /// contiguous range, whose borders are multiples of `grain`. Returns when all are done. `f` must not throw; not
  /// reentrant.
  template <class F>
  void run(std::int64_t n, std::int64_t grain, F&& f) {
    using Body = std::remove_reference_t<F>;
    run_raw(
        n, grain,
        [](void* body, std::int64_t begin, std::int64_t end, int worker) {
          (*static_cast<Body*>(body))(begin, end, worker);
        },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using RawBody = void (*)(void* body, std::int64_t begin, std::int64_t end, int worker);
  void run_raw(std::int64_t n, std::int64_t grain, RawBody call, void* body);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
