#include "nn/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "base/error.h"

namespace nibble::nn {
namespace {

KvShape shape(DType dtype = DType::f32, std::int64_t max_pages = 0) {
  KvShape s;
  s.layers = 2;
  s.kv_heads = 1;
  s.head_dim = 2;
  s.dtype = dtype;
  s.page_rows = 4;
  s.max_pages = max_pages;
  return s;
}

/// Appends `rows` positions whose keys are first, first + 1, ... and whose values are 1000 more.
void append(KvCache& cache, std::int64_t sequence, std::int64_t rows, float first) {
  ASSERT_TRUE(cache.reserve(sequence, rows));
  std::vector<float> k(static_cast<std::size_t>(rows * 2)), v(k.size());
  std::iota(k.begin(), k.end(), first);
  for (std::size_t i = 0; i < k.size(); ++i) v[i] = k[i] + 1000;
  for (const std::int64_t layer : {0, 1})
    cache.write(sequence, layer, cache.length(sequence), rows, k.data(), v.data());
  cache.advance(sequence, rows);
}

float key(const KvCache& cache, std::int64_t sequence, std::int64_t layer, std::int64_t row) {
  const KvShape& s = cache.shape();
  const std::byte* page = cache.k_pages(sequence, layer)[static_cast<std::size_t>(row / s.page_rows)];
  return load_as_f32(s.dtype, page, row % s.page_rows * 2);
}

TEST(KvCache, KeepsWhatIsWritten) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    KvCache cache(shape(dtype));
    const std::int64_t a = cache.open();
    append(cache, a, 3, 0);
    append(cache, a, 6, 6);
    EXPECT_EQ(cache.length(a), 9);
    EXPECT_EQ(cache.pages_in_use(), 3);
    for (std::int64_t row = 0; row < 9; ++row) EXPECT_EQ(key(cache, a, 1, row), static_cast<float>(2 * row));
    EXPECT_EQ(load_as_f32(dtype, cache.v_pages(a, 0)[2], 1), round_to(dtype, 1017));
  }
}

TEST(KvCache, ForksShareUntilOneWrites) {
  KvCache cache(shape());
  const std::int64_t a = cache.open();
  append(cache, a, 6, 0);
  const std::int64_t b = cache.fork(a, 5);
  EXPECT_EQ(cache.length(b), 5);
  EXPECT_EQ(cache.pages_in_use(), 2);
  append(cache, b, 1, 500);
  EXPECT_EQ(cache.pages_in_use(), 3);  // the half-filled page was copied
  EXPECT_EQ(cache.k_pages(a, 0)[0], cache.k_pages(b, 0)[0]);
  EXPECT_EQ(key(cache, a, 0, 5), 10);
  EXPECT_EQ(key(cache, b, 0, 5), 500);
  EXPECT_EQ(key(cache, b, 0, 4), 8);
  cache.close(a);
  EXPECT_EQ(key(cache, b, 1, 0), 0);
  cache.close(b);
  EXPECT_EQ(cache.pages_in_use(), 0);
}

TEST(KvCache, TruncateGivesPagesBack) {
  KvCache cache(shape());
  const std::int64_t a = cache.open();
  append(cache, a, 9, 0);
  cache.truncate(a, 4);
  EXPECT_EQ(cache.pages_in_use(), 1);
  append(cache, a, 1, 77);
  EXPECT_EQ(key(cache, a, 0, 3), 6);
  EXPECT_EQ(key(cache, a, 0, 4), 77);
  cache.truncate(a, 100);
  EXPECT_EQ(cache.length(a), 5);
}

TEST(KvCache, ReserveRespectsTheLimit) {
  KvCache cache(shape(DType::f32, 2));
  const std::int64_t a = cache.open(), b = cache.open();
  append(cache, a, 4, 0);
  EXPECT_FALSE(cache.reserve(b, 5));
  EXPECT_EQ(cache.pages_in_use(), 1);
  EXPECT_TRUE(cache.reserve(b, 4));
  EXPECT_FALSE(cache.reserve(a, 1));
  cache.close(b);
  EXPECT_TRUE(cache.reserve(a, 1));
  EXPECT_THROW(cache.length(b), Error);
}

}  // namespace
}  // namespace nibble::nn
