// Every operator of the CPU device against the reference, on each Highway target, bit-equal for 1, 2 and 3 threads.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include "base/rng.h"
#include "device/cpu/targets.h"
#include "device/device.h"
#include "hwy/highway.h"

namespace nibble {
namespace {

struct Machine {
  explicit Machine(int threads) : pool(threads) {}
  ThreadPool pool;
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = DType::f32};
};

std::vector<float> random_floats(std::int64_t count, std::uint64_t seed, double scale = 1) {
  Rng rng(seed);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& value : out) value = static_cast<float>(rng.normal() * scale);
  return out;
}

/// Runs `op` (which fills a vector) on the reference and on every target and thread count; all must agree within
/// `bound` of the largest element.
void check_op(const char* what, double bound, const std::function<std::vector<float>(Exec&)>& op) {
  std::array<Machine, 3> machines{Machine(1), Machine(2), Machine(3)};
  Exec ref = machines[0].exec;
  ref.target = Target::ref;
  const std::vector<float> expected = op(ref);
  double largest = 1e-30;
  for (const float value : expected) largest = std::max(largest, std::abs(static_cast<double>(value)));
  const auto all = hwy::SupportedTargets() & HWY_TARGETS;
  for (auto left = all; left != 0; left &= left - 1) {
    hwy::GetChosenTarget().Update(left & (~left + 1));
    std::vector<float> first;
    for (Machine& machine : machines) {
      const std::vector<float> got = op(machine.exec);
      if (first.empty()) first = got;
      ASSERT_EQ(got, first) << what << ", " << machine.pool.size() << " threads, "
                            << hwy::TargetName(left & (~left + 1));
    }
    ASSERT_EQ(first.size(), expected.size());
    for (std::size_t i = 0; i < first.size(); ++i) {
      ASSERT_NEAR(first[i], expected[i], bound * largest)
          << what << " element " << i << ", " << hwy::TargetName(left & (~left + 1));
    }
  }
  hwy::GetChosenTarget().Update(all);
}

// A sum of `cols` f32 products is off by less than cols * 2^-24 of its size; the largest output is compared, so a few
// ulp more suffice.
double sum_bound(std::int64_t cols) { return static_cast<double>(cols + 8) * 0x1p-24; }

TEST(Ops, Norms) {
  for (const std::int64_t cols : {1, 31, 64, 172, 2048}) {
    const std::int64_t rows = 9;
    const auto x = random_floats(rows * cols, 1), weight = random_floats(cols, 2), bias = random_floats(cols, 3);
    const auto run = [&](auto&& call) {
      return [&, call](Exec& exec) {
        std::vector<float> y(x.size());
        call(y.data(), exec);
        return y;
      };
    };
    check_op("rms_norm", sum_bound(cols),
             run([&](float* y, Exec& e) { e.ops().rms_norm(x.data(), weight.data(), 1e-5F, rows, cols, y, e); }));
    check_op("layer_norm", 4 * sum_bound(cols), run([&](float* y, Exec& e) {
               e.ops().layer_norm(x.data(), weight.data(), bias.data(), 1e-5F, rows, cols, y, e);
             }));
    check_op("plain layer_norm", 4 * sum_bound(cols),
             run([&](float* y, Exec& e) { e.ops().layer_norm(x.data(), nullptr, nullptr, 1e-5F, rows, cols, y, e); }));
  }
}

TEST(Ops, Rope) {
  const std::int64_t rows = 6, heads = 3, head_dim = 80;
  for (const std::int64_t rotary : {80, 32, 20}) {
    const auto x = random_floats(rows * heads * head_dim, 4), cos = random_floats(rows * rotary / 2, 5),
               sin = random_floats(rows * rotary / 2, 6);
    check_op("rope", 4 * 0x1p-24, [&](Exec& exec) {
      std::vector<float> y = x;
      exec.ops().rope(y.data(), {cos.data(), sin.data(), rotary}, rows, heads, head_dim, exec);
      return y;
    });
  }
}

TEST(Ops, ActivationsAndAddition) {
  for (const std::int64_t count : {1, 17, 4096, 10000}) {
    const auto x = random_floats(count, 7, 3), up = random_floats(count, 8);
    for (const Activation act : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::gelu_quick,
                                 Activation::relu, Activation::tanh, Activation::identity}) {
      check_op("activate", 8 * 0x1p-23, [&](Exec& exec) {
        std::vector<float> y(x.size());
        exec.ops().activate(act, x.data(), count, y.data(), exec);
        return y;
      });
      check_op("gated", 8 * 0x1p-23, [&](Exec& exec) {
        std::vector<float> y = x;
        exec.ops().gated(act, y.data(), up.data(), count, y.data(), exec);
        return y;
      });
    }
    check_op("add", 0x1p-24, [&](Exec& exec) {
      std::vector<float> y = x;
      exec.ops().add(up.data(), count, y.data(), exec);
      return y;
    });
  }
}

TEST(Ops, ActivationsAtTheEnds) {
  const std::vector<float> x{-1e30F, -200, -100, -88, -0.0F, 0, 88, 100, 1e30F, -50, 50, -30, 30, -10, 10, 1e-30F};
  for (const Activation act :
       {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::gelu_quick, Activation::tanh}) {
    Machine m(1);
    std::vector<float> y(x.size());
    m.exec.ops().activate(act, x.data(), static_cast<std::int64_t>(x.size()), y.data(), m.exec);
    for (std::size_t i = 0; i < x.size(); ++i)
      EXPECT_TRUE(std::isfinite(y[i])) << static_cast<int>(act) << " of " << x[i];
  }
}

struct AttentionCase {
  const char* name;
  std::int64_t heads, kv_heads, head_dim, page_rows;
  DType kv_dtype = DType::f32;
  std::int64_t window = 0;
  float softcap = 0;
  bool causal = true, alibi = false, distance_bias = false;
};

/// Pages of random keys and values of several sequences, and one attention call over them.
struct Paged {
  Paged(const AttentionCase& c, std::span<const std::pair<std::int64_t, std::int64_t>> rows) : c_(c) {
    std::uint64_t seed = 20;
    for (const auto& [q_rows, kv_rows] : rows) {
      q_.push_back(random_floats(q_rows * c.heads * c.head_dim, ++seed));
      for (std::int64_t at = 0; at < 2 * kv_rows; at += c.page_rows) {  // keys then values, more pages than needed
        Tensor page({c.page_rows, c.kv_heads, c.head_dim}, c.kv_dtype);
        const auto values = random_floats(page.count(), ++seed);
        convert_from_f32(c.kv_dtype, values.data(), page.data(), page.count());
        tensors_.push_back(page);
      }
    }
    std::size_t next = 0;
    k_.resize(rows.size());
    v_.resize(rows.size());
    slopes_ = random_floats(c.heads, 9, 0.1);
    for (const auto& [q_rows, kv_rows] : rows) longest_ = std::max({longest_, q_rows, kv_rows});
    bias_ = random_floats(c.heads * (2 * longest_ + kDistanceSlack), 10);
    for (std::size_t s = 0; s < rows.size(); ++s) {
      const std::int64_t pages = (rows[s].second + c.page_rows - 1) / c.page_rows;
      const std::int64_t made = (2 * rows[s].second + c.page_rows - 1) / c.page_rows;
      for (std::int64_t p = 0; p < pages; ++p) {
        k_[s].push_back(tensors_[next + static_cast<std::size_t>(p)].data());
        v_[s].push_back(tensors_[next + static_cast<std::size_t>(made - 1 - p)].data());
      }
      next += static_cast<std::size_t>(made);
      rows_.push_back(rows[s]);
    }
  }

  std::vector<float> run(Exec& exec) const {
    std::vector<std::vector<float>> out;
    std::vector<AttentionSeq> seqs(q_.size());
    for (const auto& q : q_) out.emplace_back(q.size());
    for (std::size_t s = 0; s < q_.size(); ++s)
      seqs[s] = {q_[s].data(), out[s].data(), rows_[s].first, rows_[s].second, k_[s], v_[s]};
    AttentionArgs args{.heads = c_.heads,
                       .kv_heads = c_.kv_heads,
                       .head_dim = c_.head_dim,
                       .page_rows = c_.page_rows,
                       .kv_dtype = c_.kv_dtype,
                       .scale = 1 / std::sqrt(static_cast<float>(c_.head_dim)),
                       .sliding_window = c_.window,
                       .softcap = c_.softcap,
                       .causal = c_.causal,
                       .alibi_slopes = c_.alibi ? slopes_.data() : nullptr};
    if (c_.distance_bias) {
      args.distance_bias = bias_.data();
      args.distance_stride = 2 * longest_ + kDistanceSlack;
      args.distance_origin = longest_;
    }
    exec.ops().attention(seqs, args, exec);
    std::vector<float> all;
    for (const auto& o : out) all.insert(all.end(), o.begin(), o.end());
    return all;
  }

 private:
  AttentionCase c_;
  std::vector<std::vector<float>> q_;
  std::vector<Tensor> tensors_;
  std::vector<std::vector<const std::byte*>> k_, v_;
  std::vector<std::pair<std::int64_t, std::int64_t>> rows_;
  std::vector<float> slopes_, bias_;
  std::int64_t longest_ = 0;
};

TEST(Ops, Attention) {
  const AttentionCase list[] = {{"heads of their own", 4, 4, 64, 64},
                                {"grouped, bf16", 8, 2, 64, 16, DType::bf16},
                                {"grouped, f16, head 80", 6, 3, 80, 16, DType::f16},
                                {"head 6", 2, 1, 6, 5},
                                {"window", 4, 2, 32, 16, DType::bf16, 7},
                                {"wide window", 4, 2, 32, 64, DType::f32, 70},
                                {"softcap", 4, 4, 16, 16, DType::f32, 0, 5.0F},
                                {"alibi", 4, 4, 40, 16, DType::f32, 0, 0, true, true},
                                {"encoder", 4, 4, 32, 16, DType::f32, 0, 0, false},
                                {"bias by distance", 4, 2, 24, 16, DType::f32, 0, 0, true, false, true},
                                {"encoder with bias by distance", 4, 4, 16, 64, DType::f32, 0, 0, false, false, true}};
  const std::pair<std::int64_t, std::int64_t> one[] = {{1, 1}}, step[] = {{1, 130}, {1, 64}, {3, 65}},
                                              prefill[] = {{100, 100}, {40, 150}, {1, 9}};
  for (const AttentionCase& c : list) {
    for (const auto& rows : {std::span(one, 1), std::span(step, 3), std::span(prefill, 3)}) {
      const Paged paged(c, rows);
      // scores are off by head_dim * 2^-24 of their size (some units), weights by that relative error, sums by kv_rows
      // more
      check_op(c.name, static_cast<double>(4 * c.head_dim + 150 + 64) * 0x1p-24,
               [&](Exec& exec) { return paged.run(exec); });
    }
  }
}

}  // namespace
}  // namespace nibble
