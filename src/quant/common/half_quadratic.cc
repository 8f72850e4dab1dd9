#include "quant/common/half_quadratic.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/common/affine_codes.h"
#include "quant/common/cascade_sum.h"
#include "quant/common/rounding.h"
#include "quant/common/values.h"

namespace nibble {
namespace {

class Refiner {
 public:
  Refiner(const HalfQuadratic& problem, ThreadPool& pool)
      : p_(problem),
        pool_(pool),
        dtype_(problem.values.dtype()),
        scale_(static_cast<std::size_t>(problem.groups)),
        workers_(static_cast<std::size_t>(pool.size()), Worker(problem.group)) {}

  std::vector<float> run() {
    std::vector<float> best(scale_.size());
    for_groups(0, p_.groups, [&](std::int64_t g, Worker& w) {
      load(g, w);
      const AffineGroup group = minmax_group(dtype_, p_.bits, w.x.data(), p_.group);
      scale_[static_cast<std::size_t>(g)] = group.scale;
      best[static_cast<std::size_t>(g)] = group.shift;
    });
    std::vector<float> shift = best, next(best.size());
    float best_error = mean_error(shift);
    double beta = p_.beta;
    for (std::int32_t i = 0; i < p_.iterations; ++i) {
      move(shift, beta, next);
      const float error = mean_error(next);
      if (!(error < best_error)) break;
      best_error = error;
      shift = best = next;
      beta *= p_.kappa;
    }
    return best;
  }

 private:
  struct Worker {
    explicit Worker(std::int64_t group)
        : x(static_cast<std::size_t>(group)), y(x.size()), terms(x.size()), codes(x.size()) {}
    std::vector<float> x, y, terms;
    std::vector<std::uint8_t> codes;
  };

  template <class F>
  void for_groups(std::int64_t from, std::int64_t to, F&& f) {
    pool_.run(to - from, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
      for (std::int64_t g = from + begin; g < from + end; ++g) f(g, workers_[static_cast<std::size_t>(worker)]);
    });
  }

  void load(std::int64_t g, Worker& w) const {
    const auto bytes = p_.group * static_cast<std::int64_t>(size_of(dtype_));
    load_finite(dtype_, p_.values.data() + g * bytes, w.x.data(), p_.group);
  }

  /// w.x: values, w.codes and w.y: their codes and decoded values with this shift.
  void quantize(std::int64_t g, float shift, Worker& w) const {
    load(g, w);
    const AffineGroup group{scale_[static_cast<std::size_t>(g)], shift};
    encode_affine(dtype_, p_.bits, group, w.x.data(), p_.group, w.codes.data());
    decode_affine(dtype_, group, w.codes.data(), p_.group, w.y.data());
  }

  /// mean |x - y| over all values, rounded to the dtype.
  float mean_error(const std::vector<float>& shift) {
    constexpr std::int64_t kBatch = 1 << 16;
    const std::int64_t batch = std::max<std::int64_t>(1, kBatch / p_.group);
    std::vector<float> errors(static_cast<std::size_t>(std::min(batch, p_.groups) * p_.group));
    CascadeSum sum(p_.groups * p_.group);
    for (std::int64_t from = 0; from < p_.groups; from += batch) {
      const std::int64_t to = std::min(p_.groups, from + batch);
      for_groups(from, to, [&](std::int64_t g, Worker& w) {
        quantize(g, shift[static_cast<std::size_t>(g)], w);
        float* out = errors.data() + (g - from) * p_.group;
        for (std::size_t i = 0; i < w.x.size(); ++i) out[i] = std::fabs(round_to(dtype_, w.x[i] - w.y[i]));
      });
      sum.add(errors.data(), (to - from) * p_.group);
    }
    return round_to(dtype_, sum.result() / static_cast<float>(p_.groups * p_.group));
  }

  /// next = mean over the group of code * scale - (x - shrunk error).
  void move(const std::vector<float>& shift, double beta, std::vector<float>& next) {
    const auto inverse = static_cast<float>(1.0 / beta);
    const auto exponent = static_cast<float>(p_.lp_norm - 1);
    rounding::with_rounding(dtype_, [&]<class R>(R) {
      for_groups(0, p_.groups, [&](std::int64_t g, Worker& w) {
        quantize(g, shift[static_cast<std::size_t>(g)], w);
        const float scale = scale_[static_cast<std::size_t>(g)];
        for (std::size_t i = 0; i < w.x.size(); ++i) {
          const float error = R::round(w.x[i] - w.y[i]);
          const float e = shrink<R>(error, inverse, exponent);
          const float product = R::round(static_cast<float>(w.codes[i]) * scale);
          w.terms[i] = R::round(product - R::round(w.x[i] - e));
        }
        CascadeSum sum(p_.group);
        sum.add(w.terms.data(), p_.group);
        next[static_cast<std::size_t>(g)] = R::round(sum.result() / static_cast<float>(p_.group));
      });
    });
  }

  /// sign(error) * relu(|error| - |error|^(p - 1) / beta).
  template <class R>
  static float shrink(float error, float inverse_beta, float exponent) {
    const float magnitude = std::fabs(error);
    // A magnitude below 1 has a power of at least 1 (exponent <= 0), so what is below 1 / beta shrinks to zero.
    if (exponent <= 0 && magnitude < 1 && magnitude < inverse_beta) return 0;
    const auto power =
        R::round(static_cast<float>(std::pow(static_cast<double>(magnitude), static_cast<double>(exponent))));
    const float shrunk = R::round(magnitude - R::round(inverse_beta * power));
    return shrunk > 0 ? std::copysign(shrunk, error) : 0.0F;
  }

  const HalfQuadratic& p_;
  ThreadPool& pool_;
  const DType dtype_;
  std::vector<float> scale_;
  std::vector<Worker> workers_;
};

}  // namespace

std::vector<float> half_quadratic_shifts(const HalfQuadratic& problem, ThreadPool& pool) {
  check(problem.values.count() == problem.groups * problem.group, "half_quadratic_shifts: sizes");
  return Refiner(problem, pool).run();
}

}  // namespace nibble
