#include "nn/adapters.h"

#include <algorithm>
#include <array>

namespace nibble::nn {
namespace {

/// y[i] += sum over j of t[j] * b[j * stride + i], four ranks at a time: y is read and written once for all four.
void add_product(const float* t, const float* b, std::int64_t rank, std::int64_t stride, std::int64_t count, float* y) {
  std::int64_t j = 0;
  for (; j + 4 <= rank; j += 4) {
    const float t0 = t[j], t1 = t[j + 1], t2 = t[j + 2], t3 = t[j + 3];
    const float *b0 = b + j * stride, *b1 = b0 + stride, *b2 = b1 + stride, *b3 = b2 + stride;
    for (std::int64_t i = 0; i < count; ++i) y[i] += (t0 * b0[i] + t1 * b1[i]) + (t2 * b2[i] + t3 * b3[i]);
  }
  for (; j < rank; ++j) {
    const float tj = t[j];
    const float* bj = b + j * stride;
    for (std::int64_t i = 0; i < count; ++i) y[i] += tj * bj[i];
  }
}

/// One linear of a call with its adapter and the product a x.
struct Adapted {
  const LinearJob* job = nullptr;
  const LinearAdapter* adapter = nullptr;
  float* inner = nullptr;  ///< [m, rank]
};

/// Outputs [begin, end) of all m rows.
void finish(const Adapted& part, std::int64_t m, std::int64_t begin, std::int64_t end) {
  const LinearAdapter& adapter = *part.adapter;
  const Linear& linear = *part.job->linear;
  const std::int64_t outputs = linear.outputs(), rank = adapter.rank(), count = end - begin;
  const float* own_bias = linear.bias.empty() ? nullptr : linear.bias.data() + begin;
  for (std::int64_t row = 0; row < m; ++row) {
    float* y = part.job->y + row * outputs + begin;
    if (!adapter.gain.empty()) {
      const float* gain = adapter.gain.data() + begin;
      // The gain is one of the weight: the base's bias stays as it is.
      for (std::int64_t i = 0; i < count; ++i) {
        const float bias = own_bias == nullptr ? 0.0f : own_bias[i];
        y[i] = (y[i] - bias) * gain[i] + bias;
      }
    }
    add_product(part.inner + row * rank, adapter.b.data() + begin, rank, outputs, count, y);
    if (adapter.bias.empty()) continue;
    for (std::int64_t i = 0; i < count; ++i) y[i] += adapter.bias[static_cast<std::size_t>(begin + i)];
  }
}

template <class Map>
const typename Map::mapped_type* find_in(const Map& map, std::string_view module) {
  const auto found = map.find(module);
  return found == map.end() ? nullptr : &found->second;
}

}  // namespace

void LinearAdapter::merge(std::int64_t row0, std::int64_t rows, float* w) const {
  const std::int64_t outputs = static_cast<std::int64_t>(b.size()) / std::max<std::int64_t>(rank(), 1);
  const float* ranks = a.part[0].as<float>().data();
  std::vector<float> weights(static_cast<std::size_t>(rank()));
  for (std::int64_t row = 0; row < rows; ++row) {
    float* to = w + row * a.cols;
    const auto at = static_cast<std::size_t>(row0 + row);
    if (!gain.empty()) {
      for (std::int64_t i = 0; i < a.cols; ++i) to[i] *= gain[at];
    }
    for (std::int64_t j = 0; j < rank(); ++j)
      weights[static_cast<std::size_t>(j)] = b[static_cast<std::size_t>(j * outputs) + at];
    add_product(weights.data(), ranks, rank(), a.cols, a.cols, to);
  }
}

void EmbeddingAdapter::add(std::int64_t id, float* row) const {
  add_product(a.data() + id * rank, b.data(), rank, width, width, row);
}

const LinearAdapter* Adapters::linear(std::string_view module) const { return find_in(linears, module); }

const EmbeddingAdapter* Adapters::embedding(std::string_view module) const { return find_in(embeddings, module); }

void add_adapters(std::span<const LinearJob> jobs, const float* x, std::int64_t m, Exec& exec) {
  constexpr std::size_t kMost = 8;
  check(jobs.size() <= kMost, "add_adapters: too many linears of one input");
  const Arena::Scope scope(exec.arena);
  std::array<Adapted, kMost> parts;
  std::array<MatJob, kMost> products;
  std::size_t count = 0;
  std::int64_t outputs = 0;
  for (const LinearJob& job : jobs) {
    const LinearAdapter* adapter = job.linear->adapter;
    if (adapter == nullptr) continue;
    float* inner = exec.arena.take<float>(m * adapter->rank()).data();
    MatArgs args;
    args.x = x;
    args.m = m;
    args.ldx = job.linear->inputs();
    args.y = inner;
    args.ldy = adapter->rank();
    products[count] = {&adapter->a, args};
    parts[count++] = {&job, adapter, inner};
    outputs += job.linear->outputs();
  }
  if (count == 0) return;
  Exec exact = exec;
  exact.compute = DType::f32;
  matmul_many({products.data(), count}, exact);
  // One loop over the outputs of all linears: a worker's range may cover parts of several.
  exec.pool.run(outputs, 64, [&](std::int64_t begin, std::int64_t end, int) {
    std::int64_t first = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t size = parts[i].job->linear->outputs();
      const std::int64_t from = std::max(begin, first), to = std::min(end, first + size);
      if (from < to) finish(parts[i], m, from - first, to - first);
      first += size;
    }
  });
}

}  // namespace nibble::nn
