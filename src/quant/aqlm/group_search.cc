#include "quant/aqlm/group_search.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace nibble::aqlm {
namespace {

/// Rounds of choosing each word anew; nearly always the first finds nothing.
constexpr int kRounds = 4;

}  // namespace

GroupSearch::GroupSearch(const Codebooks& books, std::int64_t beam)
    : books_(books), beam_(std::clamp<std::int64_t>(beam, 1, books.entries)) {
  for (std::int64_t k = 0; k < books.count; ++k) tables_.emplace_back(books.word(k, 0), books.entries, books.dims);
}

void GroupSearch::prepare(Metric h, float* half) const {
  for (const WordTable& table : tables_) {
    half_norms(table, h.data, h.stride, half);
    half += table.padded;
  }
}

void GroupSearch::run(const Job& job, Scratch& scratch) const {
  if (books_.count == 1) return run_one_book(job, scratch);
  const std::int64_t g = books_.dims, hypotheses = beam_ * beam_;
  scratch.values.resize(static_cast<std::size_t>(tables_.front().padded));
  scratch.found.resize(static_cast<std::size_t>(hypotheses));
  scratch.index.resize(static_cast<std::size_t>(hypotheses));
  for (int side = 0; side < 2; ++side) {
    scratch.points[side].resize(static_cast<std::size_t>(beam_ * g));
    scratch.totals[side].resize(static_cast<std::size_t>(beam_));
    scratch.codes[side].resize(static_cast<std::size_t>(beam_ * books_.count));
  }
  for (std::int64_t point = 0; point < job.count; ++point) run_point(job, point, scratch);
}

void GroupSearch::run_one_book(const Job& job, Scratch& scratch) const {
  scratch.found.resize(static_cast<std::size_t>(job.count));
  scratch.index.resize(static_cast<std::size_t>(job.count));
  nearest({tables_.data(), job.half, job.points, job.count, scratch.index.data(), scratch.found.data()});
  for (std::int64_t p = 0; p < job.count; ++p) job.codes[p * job.stride] = scratch.index[static_cast<std::size_t>(p)];
}

/// to = from - H (word `code` of codebook k).
void GroupSearch::subtract(const Job& job, std::int64_t k, std::int32_t code, const float* from, float* to) const {
  const float* word = books_.word(k, code);
  if (to != from) std::copy_n(from, books_.dims, to);
  for (std::int64_t b = 0; b < books_.dims; ++b) {
    const float factor = word[b];
    const float* h = job.h.data + b * job.h.stride;
    for (std::int64_t i = 0; i < books_.dims; ++i) to[i] -= factor * h[i];
  }
}

double GroupSearch::value_of(const Job& job, const float* point, const std::int32_t* codes) const {
  double value = 0;
  std::array<double, kMaxDims> sum{};
  for (std::int64_t k = 0; k < books_.count; ++k) {
    for (std::int64_t i = 0; i < books_.dims; ++i) {
      sum[static_cast<std::size_t>(i)] += static_cast<double>(books_.word(k, codes[k])[i]);
    }
  }
  for (std::int64_t i = 0; i < books_.dims; ++i) {
    double inner = 0;
    for (std::int64_t b = 0; b < books_.dims; ++b) {
      inner += static_cast<double>(job.h.data[i * job.h.stride + b]) * sum[static_cast<std::size_t>(b)];
    }
    value += (0.5 * inner - static_cast<double>(point[i])) * sum[static_cast<std::size_t>(i)];
  }
  return value;
}

/// Each of the partial sums gets its best words of codebook k; the best of all are the partial sums that follow.
std::int64_t GroupSearch::widen(const Job& job, std::int64_t k, std::int64_t hypotheses, Scratch& s) const {
  const std::int64_t g = books_.dims, count = books_.count;
  const WordTable& table = tables_[static_cast<std::size_t>(k)];
  for (std::int64_t h = 0; h < hypotheses; ++h) {
    all_values(table, job.half + k * table.padded, s.points[0].data() + h * g, s.values.data());
    take_lowest(s.values.data(), table.padded, beam_, s.index.data() + h * beam_, s.found.data() + h * beam_);
    for (std::int64_t b = 0; b < beam_; ++b) {
      s.found[static_cast<std::size_t>(h * beam_ + b)] += s.totals[0][static_cast<std::size_t>(h)];
    }
  }
  s.order.resize(static_cast<std::size_t>(hypotheses * beam_));
  std::iota(s.order.begin(), s.order.end(), 0);
  if (hypotheses > 1)
    std::partial_sort(s.order.begin(), s.order.begin() + beam_, s.order.end(), [&](std::int64_t a, std::int64_t b) {
      const float x = s.found[static_cast<std::size_t>(a)], y = s.found[static_cast<std::size_t>(b)];
      return x < y || (x == y && a < b);
    });
  for (std::int64_t b = 0; b < beam_; ++b) {
    const std::int64_t from = s.order[static_cast<std::size_t>(b)], parent = from / beam_;
    const std::int32_t code = s.index[static_cast<std::size_t>(from)];
    subtract(job, k, code, s.points[0].data() + parent * g, s.points[1].data() + b * g);
    std::copy_n(s.codes[0].data() + parent * count, k, s.codes[1].data() + b * count);
    s.codes[1][static_cast<std::size_t>(b * count + k)] = code;
    s.totals[1][static_cast<std::size_t>(b)] = s.found[static_cast<std::size_t>(from)];
  }
  std::swap(s.points[0], s.points[1]);
  std::swap(s.totals[0], s.totals[1]);
  std::swap(s.codes[0], s.codes[1]);
  return beam_;
}

/// The last codebook: one word for each partial sum. The best of all comes first.
void GroupSearch::finish(const Job& job, std::int64_t hypotheses, Scratch& s) const {
  const std::int64_t k = books_.count - 1;
  const WordTable& table = tables_[static_cast<std::size_t>(k)];
  nearest({&table, job.half + k * table.padded, s.points[0].data(), hypotheses, s.index.data(), s.found.data()});
  std::int64_t best = 0;
  float lowest = s.found[0] + s.totals[0][0];
  for (std::int64_t h = 1; h < hypotheses; ++h) {
    const float total = s.found[static_cast<std::size_t>(h)] + s.totals[0][static_cast<std::size_t>(h)];
    if (total < lowest) {
      lowest = total;
      best = h;
    }
  }
  std::int32_t* codes = s.codes[0].data();
  std::copy_n(codes + best * books_.count, k, codes);
  codes[k] = s.index[static_cast<std::size_t>(best)];
}

/// Each word anew for the others, until none changes.
void GroupSearch::choose_again(const Job& job, const float* point, std::int32_t* codes, Scratch& s) const {
  const std::int64_t g = books_.dims;
  float* rest = s.points[1].data();
  for (int round = 0; round < kRounds; ++round) {
    bool changed = false;
    for (std::int64_t k = 0; k < books_.count; ++k) {
      std::copy_n(point, g, rest);
      for (std::int64_t other = 0; other < books_.count; ++other) {
        if (other != k) subtract(job, other, codes[other], rest, rest);
      }
      std::int32_t code = 0;
      float value = 0;
      const WordTable& table = tables_[static_cast<std::size_t>(k)];
      nearest({&table, job.half + k * table.padded, rest, 1, &code, &value});
      changed = changed || code != codes[k];
      codes[k] = code;
    }
    if (!changed) return;
  }
}

void GroupSearch::run_point(const Job& job, std::int64_t point, Scratch& s) const {
  const float* p = job.points + point * books_.dims;
  std::copy_n(p, books_.dims, s.points[0].data());
  s.totals[0][0] = 0;
  std::int64_t hypotheses = 1;
  for (std::int64_t k = 0; k + 1 < books_.count; ++k) hypotheses = widen(job, k, hypotheses, s);
  finish(job, hypotheses, s);
  std::int32_t* found = s.codes[0].data();
  if (books_.count > 2) choose_again(job, p, found, s);
  std::int32_t* now = job.codes + point * job.stride;
  if (job.keep && !(value_of(job, p, found) < value_of(job, p, now))) return;
  std::copy_n(found, books_.count, now);
}

}  // namespace nibble::aqlm
