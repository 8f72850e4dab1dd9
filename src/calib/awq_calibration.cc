#include "calib/awq_calibration.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/process_memory.h"
#include "base/stopwatch.h"
#include "calib/awq_journal.h"
#include "calib/awq_output_loss.h"
#include "calib/block_runner.h"
#include "calib/gram.h"
#include "calib/linear_values.h"
#include "calib/module_reporter.h"
#include "layout/dense/dense.h"

namespace nibble {
namespace {

using Floats = std::vector<float>;

/// The estimate that chooses which ratios are looked at closely takes so many rows of a weight, or an eighth of them.
constexpr std::int64_t kSampleRows = 128, kSampleStep = 8;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

/// What happens to one weight.
struct Change {
  Floats inputs, outputs;  ///< factors of columns, divisors of rows
  std::shared_ptr<const Floats> group_grams;
  ModuleReport report;
};

/// The weights of a step's linears while its factors are searched.
struct Loaded {
  std::vector<Floats> values;
  std::vector<AwqWeight> weights;
  std::vector<const InputStatistics*> inputs;  ///< null: no token reached the linear
};

class AwqBlocks {
 public:
  AwqBlocks(const AwqTask& task, awq::Quantizer& quantizer, Exec& exec, const ProgressCallback& progress)
      : task_(task),
        quantizer_(quantizer),
        options_(quantizer.config().options),
        exec_(exec),
        wanted_(task.modules.begin(), task.modules.end()),
        reporter_({.modules = static_cast<std::int64_t>(wanted_.size()),
                   .journal = task.journal,
                   .fallback = task.fallback,
                   .on_module = task.on_module},
                  progress),
        weights_(task.source),
        decoder_(models::build_decoder(weights_, exec)),
        runner_(decoder_, task.sequences, exec, task.spill) {
    // Candidates change what leads to these inputs when they are run.
    if (task.loss == AwqLoss::gram) runner_.remember(task.remember_bytes);
  }

  void run() {
    const auto blocks = static_cast<std::int64_t>(decoder_.blocks.size());
    for (std::int64_t b = 0; b < blocks; ++b) {
      index_ = b;
      nn::Block& block = decoder_.blocks[at(b)];
      const auto passes = awq_passes(awq_steps(block, wanted_));
      const bool restored = !passes.empty() && restore();
      if (!restored) solve_block(block, passes, b + 1 < blocks);
      if (!passes.empty()) ++unit_;
      if (quantizer_.modules().size() >= wanted_.size()) return;
      if (restored && b + 1 < blocks) runner_.run(b, {.advance = true});
      block = {};  // its weights are not needed again
    }
  }

 private:
  void solve_block(nn::Block& block, const std::vector<std::vector<AwqStep>>& passes, bool advance) {
    record_ = {};
    observe(passes, advance);
    for (auto& [linear, change] : changes_) round(*linear, change, block);
    changes_.clear();
    if (task_.journal != nullptr && !passes.empty()) store_awq_block(*task_.journal, unit_, record_, quantizer_);
  }

  /// Takes a block from the journal, if an earlier run finished it.
  bool restore() {
    if (task_.journal == nullptr) return false;
    report(cat("block ", index_));
    const auto found = load_awq_block(*task_.journal, unit_, quantizer_, exec_);
    if (!found) return false;
    for (const ModuleReport& module : found->modules) {
      check(wanted_.contains(module.module), "awq_quantize: a journal of other modules");
      reporter_.tell(module);
    }
    if (task_.on_step) std::for_each(found->steps.begin(), found->steps.end(), task_.on_step);
    return true;
  }

  void report(std::string_view item) const {
    reporter_.progress(item, static_cast<std::int64_t>(quantizer_.modules().size()));
  }

  std::int64_t sampled(std::int64_t rows) const {
    return task_.sample_rows == 0 ? rows : std::min(rows, task_.sample_rows);
  }

  /// Searches the steps of a block, and with `advance` moves the activations behind it.
  void observe(const std::vector<std::vector<AwqStep>>& passes, bool advance) {
    const bool runs_again = task_.loss == AwqLoss::output;  // candidates are run on the activations before the block
    for (std::size_t p = 0; p < passes.size(); ++p) {
      report(cat("block ", index_));
      std::set<std::string, std::less<>> names;
      for (const AwqStep& step : passes[p]) names.merge(step.names());
      StatisticsCollector statistics(names, exec_);
      const bool last = advance && !runs_again && p + 1 == passes.size();
      if (last) {
        runner_.run(index_, {.tap = &statistics, .advance = true});
      } else {
        runner_.run(index_, {.tap = &statistics, .until = names, .keep = true});
      }
      for (const AwqStep& step : passes[p]) solve(step, statistics);
    }
    if (advance && (runs_again || passes.empty())) runner_.run(index_, {.advance = true});
  }

  void solve(const AwqStep& step, const StatisticsCollector& statistics) {
    report(step.linears.front()->name);
    const Loaded loaded = load(step, statistics);
    const InputStatistics* input = step.router != nullptr ? statistics.find(step.router->name) : loaded.inputs.front();
    AwqReport outcome;
    for (const nn::Linear* linear : step.linears) outcome.modules.push_back(linear->name);
    outcome.tokens = input == nullptr ? 0 : input->tokens;
    Floats factors(at(step.linears.front()->inputs()), 1.0F);
    outcome.searched = step.into != AwqStep::Into::nothing && input != nullptr;
    if (outcome.searched) {
      const AwqScales found = search(step, loaded, *input, outcome);
      outcome.ratio = found.ratio;
      outcome.loss = found.loss;
      outcome.plain_loss = found.plain_loss;
      if (found.ratio >= 0) factors = settle(step, found.scales);
    }
    keep(step, loaded, factors, outcome);
    if (task_.on_step) task_.on_step(outcome);
    record_.steps.push_back(std::move(outcome));
  }

  Loaded load(const AwqStep& step, const StatisticsCollector& statistics) {
    Loaded out;
    for (const nn::Linear* linear : step.linears) {
      out.values.push_back(linear_values(*linear, *task_.source, exec_));
      out.weights.push_back({out.values.back().data(), runs(step) ? linear->outputs() : sampled(linear->outputs())});
      const InputStatistics* input = statistics.find(linear->name);
      out.inputs.push_back(input);
      const auto finite = [](double v) { return std::isfinite(v); };
      if (input != nullptr && !std::all_of(input->abs_sum.begin(), input->abs_sum.end(), finite))
        throw bad_input(linear->name, ": its inputs are not finite for this calibration data");
    }
    return out;
  }

  /// Whether candidates are judged by running what is behind them.
  bool runs(const AwqStep& step) const {
    return task_.loss == AwqLoss::output && step.inspect != AwqStep::Inspect::linears;
  }

  /// Adds to `outcome` how long it took.
  AwqScales search(const AwqStep& step, const Loaded& loaded, const InputStatistics& input, AwqReport& outcome) {
    const Stopwatch watch;
    const std::int64_t group = options_.inputs_per_group(input.cols);
    Floats x_mean(at(input.cols));
    for (std::size_t k = 0; k < x_mean.size(); ++k)
      x_mean[k] = static_cast<float>(input.abs_sum[k] / static_cast<double>(input.tokens));
    const Floats w_mean = awq_weight_mean(loaded.weights, input.cols, group, AwqArithmetic::f32, exec_.pool);
    AwqScales found;
    if (runs(step)) {
      found = search_by_running(step, loaded, x_mean, w_mean, outcome);
    } else {
      found = search_by_gram(step, loaded, x_mean, w_mean, input.tokens);
    }
    std::int64_t all = 0, seen = 0;
    for (const nn::Linear* linear : step.linears) all += linear->outputs();
    for (const AwqWeight& weight : loaded.weights) seen += weight.rows;
    outcome.seconds = watch.seconds() * static_cast<double>(all) / static_cast<double>(seen);
    return found;
  }

  AwqScales search_by_gram(const AwqStep& step, const Loaded& loaded, const Floats& x_mean, const Floats& w_mean,
                           std::int64_t tokens) {
    const std::int64_t group = options_.inputs_per_group(static_cast<std::int64_t>(x_mean.size()));
    // One form for every input: experts see parts of it.
    std::map<const InputStatistics*, GramForm> forms;
    std::int64_t rows = 0;
    for (std::size_t i = 0; i < loaded.inputs.size(); ++i) {
      rows += loaded.weights[i].rows;
      const InputStatistics* own = loaded.inputs[i];
      if (own == nullptr || forms.contains(own)) continue;
      forms.emplace(own, GramForm(own->gram, own->cols, 1 / static_cast<double>(tokens), exec_.pool));
    }
    const auto loss = [&](std::span<const float> scales, bool sample) {
      double total = 0;
      for (std::size_t i = 0; i < loaded.inputs.size(); ++i) {
        if (loaded.inputs[i] == nullptr) continue;
        const std::int64_t every = std::clamp<std::int64_t>(step.linears[i]->outputs() / kSampleRows, 1, kSampleStep);
        const std::int64_t step_of_rows = sample ? every : 1;
        total += static_cast<double>(step_of_rows) *
                 awq_rounding_loss(loaded.weights[i], scales, group, forms.at(loaded.inputs[i]), exec_, step_of_rows);
      }
      return total / static_cast<double>(rows);
    };
    return awq_search(
        x_mean, w_mean, options_.duo, [&](std::span<const float> scales) { return loss(scales, false); },
        [&](std::span<const float> scales) { return loss(scales, true); });
  }

  AwqScales search_by_running(const AwqStep& step, const Loaded& loaded, const Floats& x_mean, const Floats& w_mean,
                              AwqReport& outcome) {
    const std::int64_t group = options_.inputs_per_group(static_cast<std::int64_t>(x_mean.size()));
    const Stopwatch first;
    AwqOutputLoss output(decoder_, index_, step, runner_, exec_);
    outcome.running = first.seconds();
    std::vector<QTensor> own;
    for (const nn::Linear* linear : step.linears) own.push_back(linear->weight);
    const auto loss = [&](std::span<const float> scales) {
      for (std::size_t i = 0; i < step.linears.size(); ++i) {
        const auto rounded = std::make_shared<const Floats>(awq_rounded(loaded.weights[i], scales, group, exec_.pool));
        const nn::Linear& linear = *step.linears[i];
        step.linears[i]->weight =
            dense::make(View(rounded->data(), {linear.outputs(), linear.inputs()}, DType::f32), rounded);
      }
      const Stopwatch watch;
      const double found = output.changed();
      outcome.running += watch.seconds();
      for (std::size_t i = 0; i < own.size(); ++i) step.linears[i]->weight = own[i];
      return found;
    };
    return awq_search(x_mean, w_mean, options_.duo, loss);
  }

  /// Divides what stands in front of a step by its factors. What is stored there is rounded; gives the factors that it
  /// then stands for, so that the model in floats stays the same.
  Floats settle(const AwqStep& step, const Floats& factors) {
    switch (step.into) {
      case AwqStep::Into::norm: return settle_norm(step, factors);
      case AwqStep::Into::linear: return settle_linear(*step.previous, factors);
      default: break;
    }
    Floats exact = factors;
    for (float& f : exact) {
      const float stored = round_to(DType::f16, f);
      f = std::isfinite(stored) && stored > 0 ? stored : 1;
    }
    return exact;
  }

  const TensorEntry* find(const std::string& module, const char* usual, const char* old) const {
    const TensorEntry* entry = task_.source->find(module + usual);
    return entry != nullptr ? entry : task_.source->find(module + old);
  }

  Floats settle_norm(const AwqStep& step, const Floats& factors) {
    const TensorEntry* weight = find(step.norm->name, ".weight", ".gamma");
    check(weight != nullptr, "awq: a norm without weight");
    Floats exact = factors;
    Tensor stored(weight->view);
    for (std::size_t k = 0; k < exact.size(); ++k) {
      const auto index = static_cast<std::int64_t>(k);
      const float value = weight->view.at(index), divided = round_to(stored.dtype(), value / factors[k]);
      const float real = value / divided;
      exact[k] = std::isfinite(real) && std::isfinite(divided) && real > 0 ? real : 1;
      store_from_f32(stored.dtype(), stored.data(), index, exact[k] == 1 ? value : divided);
    }
    replace(weight->name, std::move(stored));
    if (!step.norm->bias.empty()) divide(*find(step.norm->name, ".bias", ".beta"), exact);
    if (step.router != nullptr) multiply_columns(*step.router, exact);
    return exact;
  }

  Floats settle_linear(nn::Linear& previous, const Floats& factors) {
    Floats exact = factors;
    if (!previous.bias.empty()) {
      const TensorEntry& bias = *find(previous.name, ".bias", ".bias");
      // Rows are quantized and may be divided by anything: by what makes the rounded bias exact, where that is near.
      for (std::size_t k = 0; k < exact.size(); ++k) {
        const float value = bias.view.at(static_cast<std::int64_t>(k));
        const float real = value / round_to(bias.view.dtype(), value / factors[k]);
        if (std::fabs(real / factors[k] - 1) < 0.01F) exact[k] = real;
      }
      divide(bias, exact);
    }
    changes_[&previous].outputs = exact;
    return exact;
  }

  void divide(const TensorEntry& entry, const Floats& by) {
    Tensor stored(entry.view);
    for (std::size_t k = 0; k < by.size(); ++k) {
      const auto index = static_cast<std::int64_t>(k);
      store_from_f32(stored.dtype(), stored.data(), index, entry.view.at(index) / by[k]);
    }
    replace(entry.name, std::move(stored));
  }

  void multiply_columns(const nn::Linear& router, const Floats& by) {
    const TensorEntry& entry = *find(router.name, ".weight", ".weight");
    Tensor stored(entry.view);
    for (std::int64_t i = 0; i < stored.count(); ++i)
      store_from_f32(stored.dtype(), stored.data(), i, entry.view.at(i) * by[at(i) % by.size()]);
    replace(entry.name, std::move(stored));
  }

  void replace(const std::string& name, Tensor values) {
    quantizer_.replace(name, std::move(values));
    record_.replaced.push_back(name);
  }

  /// What rounding needs of a step's linears, after which their Gram matrices can go.
  void keep(const AwqStep& step, const Loaded& loaded, const Floats& factors, const AwqReport& outcome) {
    const std::int64_t group = options_.inputs_per_group(static_cast<std::int64_t>(factors.size()));
    std::map<const InputStatistics*, std::shared_ptr<const Floats>> made;
    for (std::size_t i = 0; i < step.linears.size(); ++i) {
      Change& change = changes_[step.linears[i]];
      change.inputs = factors;
      const InputStatistics* input = loaded.inputs[i];
      change.report = report_of(*step.linears[i], input, outcome);
      if (input == nullptr || !options_.clip) continue;
      std::shared_ptr<const Floats>& blocks = made[input];
      if (blocks == nullptr) {
        blocks = std::make_shared<const Floats>(
            awq_group_grams(input->gram, input->cols, group, 1 / static_cast<double>(input->tokens), factors));
      }
      change.group_grams = blocks;
    }
  }

  /// Of a linear whose step has been searched, but which is not yet rounded.
  static ModuleReport report_of(const nn::Linear& linear, const InputStatistics* input, const AwqReport& outcome) {
    ModuleReport report;
    report.module = linear.name;
    report.shape = {linear.outputs(), linear.inputs()};
    report.loss = outcome.searched ? outcome.loss : NAN;
    report.seconds = outcome.seconds / static_cast<double>(outcome.modules.size());
    report.rounded = input == nullptr;
    if (outcome.searched) report.factors = FactorReport{outcome.ratio, outcome.plain_loss};
    if (input == nullptr) return report;
    report.tokens = input->tokens;
    report.dead = std::count(input->abs_sum.begin(), input->abs_sum.end(), 0.0);
    return report;
  }

  void round(nn::Linear& linear, Change& change, const nn::Block& block) {
    report(linear.name);
    const std::int64_t rows = sampled(linear.outputs()), cols = linear.inputs();
    Floats values = linear_values(linear, *task_.source, exec_);
    const Stopwatch watch;
    values.resize(at(rows * cols));
    change.outputs.resize(at(rows), 1.0F);
    exec_.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t r = begin; r < end; ++r) {
        for (std::int64_t k = 0; k < cols; ++k)
          values[at(r * cols + k)] *= change.inputs[at(k)] / change.outputs[at(r)];
      }
    });
    // Queries and keys are multiplied with each other, so that their errors alone say little: not clipped, as in
    // AutoAWQ.
    const nn::Attention& a = block.attention;
    const bool clips = change.group_grams != nullptr && &linear != &a.q && &linear != &a.k && &linear != &a.qkv;
    quantizer_.add_scaled(linear.name, {values, std::move(change.inputs), std::move(change.outputs)},
                          clips ? std::span<const float>(*change.group_grams) : std::span<const float>(), exec_);
    change.report.seconds += watch.seconds() * static_cast<double>(linear.outputs()) / static_cast<double>(rows);
    change.report.resident_bytes = resident_bytes();
    reporter_.tell(change.report);
    record_.modules.push_back(std::move(change.report));
  }

  const AwqTask& task_;
  awq::Quantizer& quantizer_;
  AwqOptions options_;
  Exec& exec_;
  std::set<std::string, std::less<>> wanted_;
  ModuleReporter reporter_;
  WeightStore weights_;
  models::Decoder decoder_;
  BlockRunner runner_;
  std::int64_t index_ = 0;                 ///< of the block
  std::map<nn::Linear*, Change> changes_;  ///< of its linears
  AwqBlockRecord record_;                  ///< of it, for the journal
  std::int64_t unit_ = 0;                  ///< of the journal
};

}  // namespace

void awq_quantize(const AwqTask& task, awq::Quantizer& quantizer, Exec& exec, const ProgressCallback& progress) {
  AwqBlocks(task, quantizer, exec, progress).run();
  for (const std::string& module : task.modules) {
    check(quantizer.modules().contains(module), "awq_quantize: a module of no block");
  }
}

}  // namespace nibble
