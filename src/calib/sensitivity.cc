#include "calib/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/error.h"
#include "calib/block_runner.h"
#include "calib/gram.h"
#include "calib/linear_values.h"
#include "models/decoder.h"
#include "quant/common/inverse_factor.h"
#include "run/token_score.h"

namespace nibble {
namespace {

/// Tokens from which matrices are made; tokens whose predictions are compared, in sequences of at most so many.
constexpr std::int64_t kGramTokens = 16384, kScoredTokens = 1024, kSequence = 256;

using Sequences = std::vector<std::vector<std::int32_t>>;

/// The first sequences, each cut to `longest`, up to `tokens`.
Sequences first_of(const Sequences& all, std::int64_t longest, std::int64_t tokens) {
  Sequences out;
  for (const auto& ids : all) {
    const std::int64_t length = std::min({static_cast<std::int64_t>(ids.size()), longest, tokens});
    if (length < 2) continue;
    out.emplace_back(ids.begin(), ids.begin() + length);
    tokens -= length;
  }
  return out;
}

/// tr(dW G dW'): rows are summed one after the other.
double output_error(std::span<const float> weight, const QTensor& quantized, std::span<const float> gram, Exec& exec) {
  const std::int64_t rows = quantized.rows, cols = quantized.cols;
  std::vector<float> error(weight.size()), product(weight.size());
  decode(quantized, 0, rows, error.data(), exec);
  for (std::size_t i = 0; i < error.size(); ++i) error[i] -= weight[i];
  product_transposed({error.data(), rows, cols, gram.data(), cols, cols, product.data(), cols}, exec);
  double sum = 0;
  for (std::size_t i = 0; i < error.size(); ++i) {
    sum += static_cast<double>(error[i]) * static_cast<double>(product[i]);
  }
  return sum;
}

class Measurement {
 public:
  Measurement(const SensitivityTask& task, Exec& exec, const ProgressCallback& progress)
      : task_(task),
        exec_(exec),
        progress_(progress),
        weights_(task.source),
        decoder_(models::build_decoder(weights_, exec)),
        errors_(task.units.size(), std::vector<double>(task.candidates.size())) {
    check(task.reference < task.candidates.size(), "sensitivity: no such candidate");
    for (std::size_t u = 0; u < task.units.size(); ++u) {
      for (const std::string& module : task.units[u]) unit_of_[module] = u;
    }
  }

  std::vector<std::vector<double>> run() {
    solve_all();
    for (const auto& [module, unit] : unit_of_) {
      if (!solved_.contains(module)) throw bad_input(printable(module), ": is no linear that mixed precision knows");
    }
    const std::vector<double> measured = divergences();
    for (std::size_t u = 0; u < errors_.size(); ++u) {
      const double reference = errors_[u][task_.reference];
      for (double& value : errors_[u]) value = reference > 0 ? measured[u] * value / reference : 0;
    }
    return std::move(errors_);
  }

 private:
  std::int64_t blocks() const { return static_cast<std::int64_t>(decoder_.blocks.size()); }

  void report(const std::string& item, std::int64_t done, std::int64_t total) const {
    if (progress_) progress_({"measuring", item, done, total});
  }

  /// Every module in every way, with its inputs in the float model.
  void solve_all() {
    BlockRunner runner(decoder_, first_of(task_.sequences, std::numeric_limits<std::int64_t>::max(), kGramTokens),
                       exec_);
    for (std::int64_t b = 0; b < blocks(); ++b) {
      std::set<std::string, std::less<>> names;
      const std::vector<nn::Linear*> linears = quantizable_linears(decoder_.blocks[static_cast<std::size_t>(b)]);
      for (const nn::Linear* linear : linears) {
        if (unit_of_.contains(linear->name)) names.insert(linear->name);
      }
      StatisticsCollector statistics(names, exec_);
      runner.run(b, {.tap = &statistics, .advance = true});
      for (const nn::Linear* linear : linears) {
        if (!names.contains(linear->name)) continue;
        report(linear->name, b, 2 * blocks());
        const InputStatistics* input = statistics.find(linear->name);
        solve(*linear, input == nullptr ? std::vector<float>() : matrix_of(*input));
      }
    }
    if (unit_of_.contains(decoder_.head.name)) solve_head(runner);
  }

  std::vector<float> matrix_of(const InputStatistics& input) {
    return input.matrix(2.0 / static_cast<double>(input.tokens), exec_.pool);
  }

  /// The head's inputs are what comes out of the last block, normed.
  void solve_head(const BlockRunner& runner) {
    if (!decoder_.project_out.weight.empty())
      throw bad_input(decoder_.head.name, ": a head behind a projection: leave it out");
    const std::int64_t hidden = runner.hidden(), rows = runner.tokens();
    std::vector<float> x(runner.activations().begin(), runner.activations().end());
    if (decoder_.final_norm.size > 0) decoder_.final_norm.forward(x.data(), rows, x.data(), exec_);
    StatisticsCollector statistics({decoder_.head.name}, exec_);
    statistics.linear_input(decoder_.head.name, x.data(), rows, hidden);
    solve(decoder_.head, matrix_of(*statistics.find(decoder_.head.name)));
  }

  void solve(const nn::Linear& linear, const std::vector<float>& gram) {
    const std::int64_t rows = linear.outputs(), cols = linear.inputs();
    const std::vector<float> weight = linear_values(linear, *task_.source, exec_);
    QTensor& kept = solved_[linear.name];
    if (gram.empty()) return;  // an expert that no token reaches changes nothing
    for (std::size_t c = 0; c < task_.candidates.size(); ++c) {
      SolvedModule solved = task_.candidates[c]->solve(linear.name, weight, rows, cols, gram, exec_);
      errors_[unit_of_.at(linear.name)][c] += output_error(weight, solved.linear.weight, gram, exec_);
      if (c == task_.reference) kept = std::move(solved.linear.weight);
    }
  }

  /// By unit, with the reference's weights.
  std::vector<double> divergences() {
    std::vector<double> sums(task_.units.size());
    const Sequences sequences = first_of(task_.sequences, kSequence, kScoredTokens);
    std::int64_t tokens = 0;
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const auto done = static_cast<std::int64_t>(s * decoder_.blocks.size() / sequences.size());
      report(cat("sequence ", s + 1, " of ", sequences.size()), blocks() + done, 2 * blocks());
      add_sequence(sequences[s], sums);
      tokens += static_cast<std::int64_t>(sequences[s].size());
    }
    for (double& sum : sums) sum /= static_cast<double>(std::max<std::int64_t>(tokens, 1));
    return sums;
  }

  void add_sequence(const std::vector<std::int32_t>& ids, std::vector<double>& sums) {
    BlockRunner runner(decoder_, {ids}, exec_);
    const std::vector<float> base = runner.logits(0, 0);
    for (std::int64_t b = 0; b <= blocks(); ++b) {
      for (const auto& [unit, linears] : units_at(b)) {
        std::vector<QTensor> floats;
        for (nn::Linear* linear : linears) {
          floats.push_back(linear->weight);
          if (!solved_.at(linear->name).empty()) linear->weight = solved_.at(linear->name);
        }
        const std::vector<float> logits = runner.logits(b, 0);
        for (std::size_t i = 0; i < linears.size(); ++i) linears[i]->weight = floats[i];
        sums[unit] += divergence(ids, logits, base);
      }
      if (b < blocks()) runner.run(b, {.advance = true});
    }
  }

  /// The units of a block, or behind the last one the head.
  std::map<std::size_t, std::vector<nn::Linear*>> units_at(std::int64_t b) {
    std::map<std::size_t, std::vector<nn::Linear*>> units;
    std::vector<nn::Linear*> linears{&decoder_.head};
    if (b < blocks()) linears = quantizable_linears(decoder_.blocks[static_cast<std::size_t>(b)]);
    for (nn::Linear* linear : linears) {
      if (const auto found = unit_of_.find(linear->name); found != unit_of_.end())
        units[found->second].push_back(linear);
    }
    return units;
  }

  /// Summed over the tokens.
  double divergence(const std::vector<std::int32_t>& ids, const std::vector<float>& logits,
                    const std::vector<float>& base) {
    std::vector<TokenScore> scores(ids.size());
    score_rows(ids, logits.data(), base.data(), decoder_.config.vocab_size, exec_.pool, scores.data());
    double sum = 0;
    for (const TokenScore& score : scores) sum += score.kl;
    if (!std::isfinite(sum)) throw bad_input("the model's logits are not finite for this calibration data");
    return sum;
  }

  const SensitivityTask& task_;
  Exec& exec_;
  const ProgressCallback& progress_;
  std::map<std::string, std::size_t, std::less<>> unit_of_;
  WeightStore weights_;
  models::Decoder decoder_;
  std::map<std::string, QTensor, std::less<>> solved_;  ///< of the reference; empty: no token reaches it
  std::vector<std::vector<double>> errors_;             ///< [units][candidates]
};

}  // namespace

std::vector<std::vector<double>> measure_sensitivity(const SensitivityTask& task, Exec& exec,
                                                     const ProgressCallback& progress) {
  if (first_of(task.sequences, kSequence, kScoredTokens).empty()) {
    throw bad_input("mixed precision is chosen by calibration data, of which there is none");
  }
  Exec exact = exec;
  exact.compute = DType::f32;  // differences of bf16 arithmetic are as large as those of the least sensitive parts
  return Measurement(task, exact, progress).run();
}

}  // namespace nibble
