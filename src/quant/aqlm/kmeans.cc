#include "quant/aqlm/kmeans.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "quant/aqlm/nearest.h"

namespace nibble::aqlm {
namespace {

/// `count` different numbers below `n`, in ascending order, so that points are read front to back.
std::vector<std::int64_t> sample(std::int64_t n, std::int64_t count, Rng& rng) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  if (count >= n) return out;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto other = i + static_cast<std::int64_t>(rng.uniform() * static_cast<double>(n - i));
    std::swap(out[static_cast<std::size_t>(i)], out[static_cast<std::size_t>(other)]);
  }
  out.resize(static_cast<std::size_t>(count));
  std::sort(out.begin(), out.end());
  return out;
}

class Lloyd {
 public:
  Lloyd(std::span<const float> points, std::span<const float> weights, std::int64_t dims, std::int64_t entries,
        ThreadPool& pool)
      : points_(points),
        weights_(weights),
        dims_(dims),
        entries_(entries),
        count_(static_cast<std::int64_t>(points.size()) / dims),
        pool_(pool),
        words_(static_cast<std::size_t>(entries * dims)) {}

  void start(Rng& rng) {
    const std::vector<std::int64_t> chosen = sample(count_, entries_, rng);
    for (std::size_t e = 0; e < chosen.size(); ++e) copy_point(chosen[e], static_cast<std::int64_t>(e));
  }

  void set_words(std::vector<float> words) { words_ = std::move(words); }
  std::vector<float> take_words() { return std::move(words_); }
  std::vector<std::int32_t> take_codes() { return std::move(codes_); }

  /// Whether a code changed.
  bool assign() {
    const WordTable table(words_.data(), entries_, dims_);
    std::vector<float> half(static_cast<std::size_t>(table.padded)), value(static_cast<std::size_t>(count_));
    std::vector<float> unit(static_cast<std::size_t>(dims_ * dims_));
    for (std::int64_t i = 0; i < dims_; ++i) unit[static_cast<std::size_t>(i * (dims_ + 1))] = 1;
    half_norms(table, unit.data(), dims_, half.data());
    std::vector<std::int32_t> codes(static_cast<std::size_t>(count_));
    pool_.run(count_, 64, [&](std::int64_t begin, std::int64_t end, int) {
      nearest({&table, half.data(), points_.data() + begin * dims_, end - begin, codes.data() + begin,
               value.data() + begin});
    });
    const bool changed = codes != codes_;
    codes_ = std::move(codes);
    return changed;
  }

  void move_words(Rng& rng) {
    std::vector<double> sums(words_.size()), mass(static_cast<std::size_t>(entries_));
    for (std::int64_t p = 0; p < count_; ++p) {
      const auto e = static_cast<std::int64_t>(codes_[static_cast<std::size_t>(p)]);
      const auto weight = static_cast<double>(weights_[static_cast<std::size_t>(p)]);
      mass[static_cast<std::size_t>(e)] += weight;
      const float* from = points_.data() + p * dims_;
      double* to = sums.data() + e * dims_;
      for (std::int64_t i = 0; i < dims_; ++i) to[i] += weight * static_cast<double>(from[i]);
    }
    for (std::int64_t e = 0; e < entries_; ++e) {
      const double m = mass[static_cast<std::size_t>(e)];
      if (m > 0) {
        for (std::int64_t i = e * dims_; i < (e + 1) * dims_; ++i) {
          words_[static_cast<std::size_t>(i)] = static_cast<float>(sums[static_cast<std::size_t>(i)] / m);
        }
      } else {
        copy_point(static_cast<std::int64_t>(rng.uniform() * static_cast<double>(count_)), e);
      }
    }
  }

 private:
  void copy_point(std::int64_t point, std::int64_t entry) {
    std::copy_n(points_.data() + point * dims_, dims_, words_.data() + entry * dims_);
  }

  std::span<const float> points_, weights_;
  std::int64_t dims_, entries_, count_;
  ThreadPool& pool_;
  std::vector<float> words_;
  std::vector<std::int32_t> codes_;
};

/// A word for every point.
KMeans every_point(std::span<const float> points, std::int64_t count, std::int64_t word_values) {
  KMeans out;
  out.words.resize(static_cast<std::size_t>(word_values));
  std::copy(points.begin(), points.end(), out.words.begin());
  out.codes.resize(static_cast<std::size_t>(count));
  std::iota(out.codes.begin(), out.codes.end(), 0);
  return out;
}

}  // namespace

KMeans kmeans(std::span<const float> points, std::span<const float> weights, std::int64_t dims,
              const KMeansOptions& options, Rng& rng, ThreadPool& pool) {
  const auto count = static_cast<std::int64_t>(weights.size());
  check(static_cast<std::int64_t>(points.size()) == count * dims, "kmeans: points and weights");
  if (count <= options.entries) return every_point(points, count, options.entries * dims);
  const std::int64_t wanted = options.points_per_entry > 0 ? options.points_per_entry * options.entries : count;
  std::vector<float> some_points, some_weights;
  std::span<const float> used = points, used_weights = weights;
  if (wanted < count) {
    for (const std::int64_t p : sample(count, wanted, rng)) {
      some_points.insert(some_points.end(), points.begin() + p * dims, points.begin() + (p + 1) * dims);
      some_weights.push_back(weights[static_cast<std::size_t>(p)]);
    }
    used = some_points;
    used_weights = some_weights;
  }
  Lloyd lloyd(used, used_weights, dims, options.entries, pool);
  lloyd.start(rng);
  for (std::int64_t i = 0; i < options.iterations && lloyd.assign(); ++i) lloyd.move_words(rng);
  Lloyd last(points, weights, dims, options.entries, pool);
  last.set_words(lloyd.take_words());
  last.assign();
  KMeans out;
  out.words = last.take_words();
  out.codes = last.take_codes();
  return out;
}

}  // namespace nibble::aqlm
