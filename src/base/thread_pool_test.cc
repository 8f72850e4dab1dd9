#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "base/arena.h"
#include "base/error.h"
#include "base/rng.h"

namespace nibble {
namespace {

TEST(ThreadPool, CoversTheRangeOnceOnBordersOfTheGrain) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const std::int64_t n : {0, 1, 2, 5, 64, 1000}) {
      for (const std::int64_t grain : {1, 3, 16, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
        pool.run(n, grain, [&](std::int64_t begin, std::int64_t end, int worker) {
          ++calls[static_cast<std::size_t>(worker)];
          if (begin % grain != 0 || (end % grain != 0 && end != n)) hits[0] += 100;
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        for (const auto& hit : hits) ASSERT_EQ(hit, 1) << threads << ' ' << n << ' ' << grain;
        for (const auto& call : calls) ASSERT_LE(call, 1);
      }
    }
  }
  EXPECT_GE(ThreadPool().size(), 1);
  EXPECT_THROW(ThreadPool(-1), Error);
}

TEST(ThreadPool, ManyShortRunsSeeEachOthersWrites) {
  ThreadPool pool(4);
  std::vector<std::int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.run(64, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) ++values[static_cast<std::size_t>((i + 7 * round) % 64)];
    });
  }
  for (const std::int64_t value : values) EXPECT_EQ(value, 2000);
}

TEST(Arena, AlignedDistinctAndReused) {
  Arena arena(1024);
  float* first = nullptr;
  {
    const Arena::Scope scope(arena);
    const auto a = arena.take<float>(3);
    const auto b = arena.take<std::uint8_t>(1);
    const auto large = arena.take<double>(10'000);
    first = a.data();
    for (const void* p : {static_cast<const void*>(a.data()), static_cast<const void*>(b.data()),
                          static_cast<const void*>(large.data())}) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 64, 0U);
    }
    EXPECT_GE(reinterpret_cast<std::uintptr_t>(b.data()) - reinterpret_cast<std::uintptr_t>(a.data()), 64U);
    std::fill(large.begin(), large.end(), 1.0);
    std::fill(a.begin(), a.end(), 2.0F);
    EXPECT_EQ(large[0], 1.0);
  }
  const std::size_t reserved = arena.reserved();
  EXPECT_GE(reserved, 81'024U);
  const Arena::Scope scope(arena);
  EXPECT_EQ(arena.take<float>(3).data(), first);
  EXPECT_EQ(arena.take<double>(10'000).size(), 10'000U);
  EXPECT_EQ(arena.reserved(), reserved) << "memory is reused";
}

TEST(Rng, IsXoshiro256StarStarSeededBySplitMix64) {
  Rng rng(0);
  EXPECT_EQ(rng.next(), 0x99ec5f36cb75f2b4ULL);
  EXPECT_EQ(rng.next(), 0xbf6e1f784956452aULL);
  Rng other(42);
  double mean = 0, square = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double value = other.normal();
    mean += value / 100'000;
    square += value * value / 100'000;
    const double uniform = other.uniform();
    ASSERT_TRUE(uniform >= 0 && uniform < 1);
  }
  EXPECT_NEAR(mean, 0, 0.02);
  EXPECT_NEAR(square, 1, 0.03);
}

}  // namespace
}  // namespace nibble
