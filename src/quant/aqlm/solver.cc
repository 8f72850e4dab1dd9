#include "quant/aqlm/solver.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "quant/aqlm/additive.h"
#include "quant/aqlm/code_pass.h"
#include "quant/aqlm/codebook_fit.h"
#include "quant/aqlm/kmeans.h"

namespace nibble::aqlm {
namespace {

constexpr float kLargestHalf = 65504;
/// Added to the Gram matrix's diagonal, as a part of its mean: gives a best value to inputs that were always zero.
constexpr float kRidge = 1e-5F;
/// A loss below this part of the energy is rounding.
constexpr double kNothing = 1e-9;

class Solver {
 public:
  Solver(std::span<const float> weight, std::int64_t rows, std::span<const float> gram, const Options& options,
         Exec& exec)
      : options_(options), exec_(exec), rng_(options.seed) {
    p_.rows = rows;
    p_.cols = static_cast<std::int64_t>(weight.size()) / rows;
    p_.dims = options.group;
    order_groups(gram);
    take_weight(weight);
    books_.count = options.codebooks;
    books_.entries = std::int64_t{1} << options.bits;
    books_.dims = options.group;
  }

  Solution run() {
    start();
    if (loss() <= kNothing * energy()) {  // a word for every group, for example
      record();
      finish();
      return std::move(out_);
    }
    const ErrorFeedback feedback(p_, options_.damp, exec_);
    choose_codes(feedback);
    record();
    for (std::int64_t epoch = 0; epoch < options_.effort.epochs; ++epoch) {
      fit_scales();
      fit_codebooks(p_, codes_, options_.effort.fit_steps, books_, exec_);
      choose_codes(feedback);
      record();
      const double before = out_.losses[out_.losses.size() - 2], now = out_.losses.back();
      if (!(now < before * (1 - options_.effort.tolerance))) break;
    }
    finish();
    return std::move(out_);
  }

 private:
  /// Groups with more energy first: later groups can make up for their errors.
  void order_groups(std::span<const float> gram) {
    const std::int64_t n = p_.cols, g = p_.dims;
    std::vector<double> energy(static_cast<std::size_t>(p_.groups()));
    double trace = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      energy[static_cast<std::size_t>(i / g)] += static_cast<double>(gram[static_cast<std::size_t>(i * (n + 1))]);
      trace += static_cast<double>(gram[static_cast<std::size_t>(i * (n + 1))]);
    }
    order_.resize(energy.size());
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](std::int64_t a, std::int64_t b) {
      return energy[static_cast<std::size_t>(a)] > energy[static_cast<std::size_t>(b)];
    });
    gram_scale_ = trace > 0 ? trace / static_cast<double>(n) : 1;
    const auto factor = static_cast<float>(1 / gram_scale_);
    p_.gram.resize(gram.size());
    exec_.pool.run(n, 16, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          p_.gram[static_cast<std::size_t>(i * n + j)] =
              factor * gram[static_cast<std::size_t>(source(i) * n + source(j))];
        }
        p_.gram[static_cast<std::size_t>(i * (n + 1))] += trace > 0 ? kRidge : 1;
      }
    });
  }

  /// The input that is column `col` here.
  std::int64_t source(std::int64_t col) const {
    return order_[static_cast<std::size_t>(col / p_.dims)] * p_.dims + col % p_.dims;
  }

  /// Scales begin as the root mean square of each row.
  void take_weight(std::span<const float> weight) {
    const std::int64_t n = p_.cols;
    weight_.resize(weight.size());
    scales_.resize(static_cast<std::size_t>(p_.rows));
    exec_.pool.run(p_.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        double sum = 0;
        for (std::int64_t c = 0; c < n; ++c) {
          const float w = weight[static_cast<std::size_t>(r * n + source(c))];
          weight_[static_cast<std::size_t>(r * n + c)] = w;
          sum += static_cast<double>(w) * static_cast<double>(w);
        }
        scales_[static_cast<std::size_t>(r)] = static_cast<float>(std::sqrt(sum / static_cast<double>(n)));
      }
    });
    double mean = 0;
    for (const float s : scales_) mean += static_cast<double>(s) * static_cast<double>(s);
    mean /= static_cast<double>(p_.rows);
    row_scale_ = mean > 0 ? mean : 1;
    p_.target.resize(weight_.size());
    p_.row_weight.resize(scales_.size());
    set_targets();
  }

  void set_targets() {
    exec_.pool.run(p_.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float scale = scales_[static_cast<std::size_t>(r)], factor = scale > 0 ? 1 / scale : 0;
        p_.row_weight[static_cast<std::size_t>(r)] = scale * scale / static_cast<float>(row_scale_);
        for (std::int64_t i = r * p_.cols; i < (r + 1) * p_.cols; ++i) {
          p_.target[static_cast<std::size_t>(i)] = factor * weight_[static_cast<std::size_t>(i)];
        }
      }
    });
  }

  /// Residual k-means: each codebook approximates what those before it left. Groups count by their inputs' energy.
  void start() {
    std::vector<float> rest = p_.target, importance;
    const std::int64_t points = p_.rows * p_.groups();
    for (std::int64_t at = 0; at < points; ++at) {
      double energy = 0;
      const std::int64_t col = at % p_.groups() * p_.dims;
      for (std::int64_t i = col; i < col + p_.dims; ++i)
        energy += static_cast<double>(p_.gram[static_cast<std::size_t>(i * (p_.cols + 1))]);
      importance.push_back(static_cast<float>(energy) * p_.row_weight[static_cast<std::size_t>(at / p_.groups())]);
    }
    codes_.resize(static_cast<std::size_t>(points * books_.count));
    for (std::int64_t k = 0; k < books_.count; ++k) {
      const KMeans found = kmeans(rest, importance, p_.dims,
                                  {books_.entries, options_.effort.kmeans_iterations, options_.effort.points_per_word},
                                  rng_, exec_.pool);
      books_.words.insert(books_.words.end(), found.words.begin(), found.words.end());
      for (std::int64_t at = 0; at < points; ++at) {
        const std::int32_t code = found.codes[static_cast<std::size_t>(at)];
        codes_[static_cast<std::size_t>(at * books_.count + k)] = code;
        const float* word = books_.word(k, code);
        for (std::int64_t i = 0; i < p_.dims; ++i) rest[static_cast<std::size_t>(at * p_.dims + i)] -= word[i];
      }
    }
  }

  /// Two searches, of which every row takes the better.
  void choose_codes(const ErrorFeedback& feedback) {
    const GroupSearch search(books_, options_.effort.beam);
    improve(search, codes_);
    if (!feedback.usable()) return;
    Codes other = codes_with_feedback(p_, feedback, search, books_, exec_);
    improve(search, other);
    take_better(other);
  }

  void improve(const GroupSearch& search, Codes& codes) {
    std::vector<float> errors = errors_of(p_, books_, codes, exec_.pool);
    for (std::int64_t pass = 0; pass < options_.effort.passes; ++pass) {
      if (improve_codes(p_, search, books_, codes, errors, exec_) == 0) return;
    }
  }

  void take_better(const Codes& other) {
    const std::vector<double> mine = row_losses(p_, errors_of(p_, books_, codes_, exec_.pool), exec_),
                              others = row_losses(p_, errors_of(p_, books_, other, exec_.pool), exec_);
    const std::int64_t width = p_.groups() * books_.count;
    for (std::int64_t r = 0; r < p_.rows; ++r) {
      if (others[static_cast<std::size_t>(r)] >= mine[static_cast<std::size_t>(r)]) continue;
      std::copy_n(other.begin() + r * width, width, codes_.begin() + r * width);
    }
  }

  /// The best scale of every row for its words: <T, u> / <u, u> in the metric of the Gram matrix, times the scale.
  void fit_scales() {
    const std::vector<float> u = sums_of_words(p_, books_, codes_, exec_.pool), product = times_gram(p_, u, exec_);
    exec_.pool.run(p_.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        double mixed = 0, own = 0;
        for (std::int64_t i = r * p_.cols; i < (r + 1) * p_.cols; ++i) {
          const auto at = static_cast<std::size_t>(i);
          mixed += static_cast<double>(p_.target[at]) * static_cast<double>(product[at]);
          own += static_cast<double>(u[at]) * static_cast<double>(product[at]);
        }
        if (own > 0 && mixed > 0) scales_[static_cast<std::size_t>(r)] *= static_cast<float>(mixed / own);
      }
    });
    set_targets();
  }

  double loss() {
    return loss_of(p_, row_losses(p_, errors_of(p_, books_, codes_, exec_.pool), exec_)) * gram_scale_ * row_scale_;
  }
  /// The loss of words that are all zero.
  double energy() { return loss_of(p_, row_losses(p_, p_.target, exec_)) * gram_scale_ * row_scale_; }
  void record() { out_.losses.push_back(loss()); }

  /// Words and scales become values of f16; codes and scales adapt to that.
  void finish() {
    for (float& value : books_.words) value = round_to(DType::f16, std::clamp(value, -kLargestHalf, kLargestHalf));
    improve(GroupSearch(books_, options_.effort.beam), codes_);
    fit_scales();
    for (float& scale : scales_) {
      scale = round_to(DType::f16, scale);
      if (!(scale <= kLargestHalf))
        throw bad_input("a row's scale of more than ", kLargestHalf, " does not fit into f16");
    }
    set_targets();
    out_.loss = loss();
    out_.scales = std::move(scales_);
    out_.words = std::move(books_.words);
    out_.codes.resize(codes_.size());
    for (std::int64_t r = 0; r < p_.rows; ++r) {
      for (std::int64_t j = 0; j < p_.groups(); ++j) {
        const std::int64_t to = (r * p_.groups() + order_[static_cast<std::size_t>(j)]) * books_.count;
        std::copy_n(codes_.begin() + (r * p_.groups() + j) * books_.count, books_.count, out_.codes.begin() + to);
      }
    }
  }

  const Options& options_;
  Exec& exec_;
  Rng rng_;
  Problem p_;
  Codebooks books_;
  Codes codes_;
  std::vector<std::int64_t> order_;  ///< the group that comes j-th here
  std::vector<float> weight_, scales_;
  double gram_scale_ = 1, row_scale_ = 1;  ///< what the problem's matrices were divided by
  Solution out_;
};

}  // namespace

Effort effort_of(Preset preset) {
  switch (preset) {
    case Preset::fast:
      return {.kmeans_iterations = 10,
              .points_per_word = 64,
              .beam = 4,
              .epochs = 3,
              .fit_steps = 6,
              .passes = 1,
              .tolerance = 0.01};
    case Preset::best:
      return {.kmeans_iterations = 100,
              .points_per_word = 0,
              .beam = 16,
              .epochs = 40,
              .fit_steps = 20,
              .passes = 4,
              .tolerance = 0.001};
    default: return {};
  }
}

std::optional<Preset> preset_from_name(std::string_view name) {
  if (name == "fast") return Preset::fast;
  if (name == "standard") return Preset::standard;
  if (name == "best") return Preset::best;
  return std::nullopt;
}

void check_options(const Options& options, std::int64_t cols) {
  const std::int64_t g = options.group;
  if (options.codebooks < 1 || options.codebooks > 16) {
    throw bad_input("AQLM: ", options.codebooks, " codebooks (1 to 16 are possible)");
  }
  if (options.bits < 1 || options.bits > 16)
    throw bad_input("AQLM: codes of ", options.bits, " bits (1 to 16 are possible)");
  if (g != 4 && g != 8 && g != 16 && g != 32)
    throw bad_input("AQLM: groups of ", g, " inputs (4, 8, 16 and 32 are possible)");
  if (cols % g != 0) throw bad_input("AQLM: groups of ", g, " do not divide ", cols, " inputs");
}

Solution solve(std::span<const float> weight, std::int64_t rows, std::span<const float> gram, const Options& options,
               Exec& exec) {
  check(rows > 0 && static_cast<std::int64_t>(weight.size()) % rows == 0, "aqlm::solve: size of the weight");
  const std::int64_t cols = static_cast<std::int64_t>(weight.size()) / rows;
  check_options(options, cols);
  check(static_cast<std::int64_t>(gram.size()) == cols * cols, "aqlm::solve: size of the Gram matrix");
  return Solver(weight, rows, gram, options, exec).run();
}

}  // namespace nibble::aqlm
