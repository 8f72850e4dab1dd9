// The vectorized inner loops against plain loops in double, and k-means.
#include "quant/aqlm/nearest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/rng.h"
#include "quant/aqlm/kmeans.h"

namespace nibble::aqlm {
namespace {

std::vector<float> normals(std::int64_t count, Rng& rng) {
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& value : out) value = static_cast<float>(rng.normal());
  return out;
}

/// A random symmetric positive definite matrix.
std::vector<float> metric_of(std::int64_t n, Rng& rng) {
  const std::vector<float> a = normals(n * n, rng);
  std::vector<float> out(a.size());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t k = 0; k < n; ++k) {
        out[static_cast<std::size_t>(i * n + j)] +=
            a[static_cast<std::size_t>(i * n + k)] * a[static_cast<std::size_t>(j * n + k)];
      }
    }
  }
  return out;
}

double value_of(const float* word, const float* h, const float* point, std::int64_t n) {
  double value = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    double inner = 0;
    for (std::int64_t k = 0; k < n; ++k) inner += static_cast<double>(h[i * n + k]) * static_cast<double>(word[k]);
    value += (0.5 * inner - static_cast<double>(point[i])) * static_cast<double>(word[i]);
  }
  return value;
}

TEST(AqlmNearest, FindsTheLowestOfAllWords) {
  Rng rng(1);
  for (const std::int64_t dims : {4, 8, 16, 32}) {
    for (const std::int64_t entries : {2, 63, 256, 1500}) {
      const std::vector<float> words = normals(entries * dims, rng), h = metric_of(dims, rng);
      const std::int64_t count = 70;  // more than one batch, and no whole number of those compared at once
      std::vector<float> points = normals(count * dims, rng);
      for (float& p : points) p *= static_cast<float>(dims);
      const WordTable table(words.data(), entries, dims);
      std::vector<float> half(static_cast<std::size_t>(table.padded)), value(count);
      half_norms(table, h.data(), dims, half.data());
      std::vector<std::int32_t> index(count);
      nearest({&table, half.data(), points.data(), count, index.data(), value.data()});
      for (std::int64_t p = 0; p < count; ++p) {
        double lowest = std::numeric_limits<double>::max();
        for (std::int64_t e = 0; e < entries; ++e) {
          lowest = std::min(lowest, value_of(words.data() + e * dims, h.data(), points.data() + p * dims, dims));
        }
        const std::int32_t found = index[static_cast<std::size_t>(p)];
        ASSERT_TRUE(found >= 0 && found < entries) << dims << " " << entries;
        const double own = value_of(words.data() + found * dims, h.data(), points.data() + p * dims, dims);
        const double close = 1e-4 * (1 + std::fabs(lowest));
        EXPECT_NEAR(own, lowest, close) << dims << " " << entries;
        EXPECT_NEAR(static_cast<double>(value[static_cast<std::size_t>(p)]), lowest, close);
      }
    }
  }
}

TEST(AqlmNearest, TakesTheFirstAmongEquals) {
  const std::vector<float> words(64 * 8, 1.0F), unit = [] {
    std::vector<float> h(64);
    for (std::size_t i = 0; i < 8; ++i) h[i * 9] = 1;
    return h;
  }();
  const WordTable table(words.data(), 64, 8);
  std::vector<float> half(static_cast<std::size_t>(table.padded)), point(8, 1.0F), value(1);
  half_norms(table, unit.data(), 8, half.data());
  EXPECT_EQ(half[0], 4);
  std::vector<std::int32_t> index(3, -1);
  nearest({&table, half.data(), point.data(), 1, index.data(), value.data()});
  EXPECT_EQ(index[0], 0);
  EXPECT_EQ(value[0], -4);
  std::vector<float> values(static_cast<std::size_t>(table.padded)), lowest(3);
  all_values(table, half.data(), point.data(), values.data());
  values[40] = -5;
  take_lowest(values.data(), table.padded, 3, index.data(), lowest.data());
  EXPECT_EQ(index, (std::vector<std::int32_t>{40, 0, 1}));
  EXPECT_EQ(lowest, (std::vector<float>{-5, -4, -4}));
}

double squared_distance(const float* a, const float* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return sum;
}

double spread(const std::vector<float>& points, const KMeans& found, std::int64_t dims) {
  double sum = 0;
  for (std::size_t p = 0; p < found.codes.size(); ++p) {
    sum += squared_distance(points.data() + static_cast<std::int64_t>(p) * dims,
                            found.words.data() + found.codes[p] * dims, dims);
  }
  return sum;
}

TEST(AqlmKMeans, FindsClustersAndNamesTheNearestWord) {
  Rng rng(3);
  const std::int64_t dims = 8, count = 900;
  std::vector<float> points = normals(count * dims, rng);
  const std::vector<float> weights(count, 1.0F);
  ThreadPool one(1), three(3);
  double before = std::numeric_limits<double>::max();
  for (const std::int64_t iterations : {1, 3, 30}) {
    Rng a(5), b(5);
    const KMeansOptions options{16, iterations, 0};
    const KMeans found = kmeans(points, weights, dims, options, a, one);
    const KMeans same = kmeans(points, weights, dims, options, b, three);
    EXPECT_EQ(found.codes, same.codes);
    EXPECT_EQ(found.words, same.words);
    const double now = spread(points, found, dims);
    EXPECT_LT(now, before);
    before = now;
    for (std::int64_t p = 0; p < count; ++p) {
      double least = std::numeric_limits<double>::max();
      for (std::int64_t e = 0; e < 16; ++e) {
        least = std::min(least, squared_distance(points.data() + p * dims, found.words.data() + e * dims, dims));
      }
      const std::int32_t code = found.codes[static_cast<std::size_t>(p)];
      EXPECT_NEAR(squared_distance(points.data() + p * dims, found.words.data() + code * dims, dims), least, 1e-4);
    }
  }
}

TEST(AqlmKMeans, WeightsDecideWhereAWordLies) {
  Rng rng(1);
  ThreadPool pool(1);
  const std::vector<float> points{0, 0, 0, 0, 4, 4, 4, 4}, weights{3, 1};
  const KMeans found = kmeans(points, weights, 4, {1, 10, 0}, rng, pool);
  EXPECT_EQ(found.words, (std::vector<float>{1, 1, 1, 1}));
}

TEST(AqlmKMeans, FewerPointsThanWords) {
  Rng rng(2);
  ThreadPool pool(2);
  const std::vector<float> points = normals(5 * 8, rng), weights(5, 1.0F);
  const KMeans found = kmeans(points, weights, 8, {64, 10, 4}, rng, pool);
  EXPECT_EQ(found.words.size(), 64U * 8);
  EXPECT_LT(spread(points, found, 8), 1e-10) << "every point is a word";
  const KMeans none = kmeans(points, std::vector<float>(5, 0.0F), 8, {2, 10, 0}, rng, pool);
  for (const float w : none.words) EXPECT_TRUE(std::isfinite(w)) << "no point counts";
}

}  // namespace
}  // namespace nibble::aqlm
