#include "calib/block_quantizer.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/stopwatch.h"
#include "calib/float_target.h"
#include "calib/gram.h"
#include "calib/linear_values.h"
#include "calib/module_reporter.h"

namespace nibble {
namespace {

std::vector<float> unit_matrix(std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < n; ++i) out[static_cast<std::size_t>(i * (n + 1))] = 1;
  return out;
}

/// Which linears of a block share an input, in the order in which they run.
class InputOrder final : public Tap {
 public:
  void linear_input(std::string_view module, const float* x, std::int64_t, std::int64_t) override {
    if (shared_.input(module, x) == module) subsets_.emplace_back();
    subsets_.back().emplace(module);
  }
  void linear_output(std::string_view, const float*, std::int64_t, std::int64_t) override { shared_.output(); }
  std::vector<std::set<std::string, std::less<>>> take() { return std::move(subsets_); }

 private:
  std::vector<std::set<std::string, std::less<>>> subsets_;
  SharedInputs shared_;
};

using Names = std::set<std::string, std::less<>>;

/// Of the matrix that a weight's target divides by.
constexpr double kTargetDamp = 0.01;

class BlockQuantizer {
 public:
  BlockQuantizer(const BlockTask& task, SolvedQuantizer& quantizer, Exec& exec, const ProgressCallback& progress)
      : task_(task),
        quantizer_(quantizer),
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
    runner_.remember(task.float_inputs == 0 ? task.remember_bytes : task.remember_bytes / 2);
    if (task.float_inputs == 0) return;
    float_decoder_ = decoder_;
    float_runner_ = std::make_unique<BlockRunner>(float_decoder_, task.sequences, exec, task.spill);
    float_runner_->remember(task.remember_bytes / 2);
  }

  void run() {
    const auto blocks = static_cast<std::int64_t>(decoder_.blocks.size());
    for (std::int64_t b = 0; b < blocks; ++b) {
      report(cat("block ", b));
      const std::vector<Names> subsets = subsets_of(b);
      for (const Names& subset : subsets) solve_subset(b, subset);
      if (quantizer_.modules().size() >= wanted_.size()) return;
      if (b + 1 < blocks) {
        runner_.run(b, {.advance = true});
        if (float_runner_) float_runner_->run(b, {.advance = true});
      }
      forget(decoder_.blocks[static_cast<std::size_t>(b)]);
      if (float_runner_) float_decoder_.blocks[static_cast<std::size_t>(b)] = {};
    }
  }

 private:
  void report(std::string_view item) const {
    reporter_.progress(item, static_cast<std::int64_t>(quantizer_.modules().size()));
  }

  /// A block's weights are not needed again before the result is written.
  void forget(nn::Block& block) {
    for (const nn::Linear* linear : quantizable_linears(block)) {
      const TensorEntry* weight = task_.source->find(linear->name + ".weight");
      if (weight != nullptr) task_.source->release(weight->view);
    }
    block = {};
  }

  /// The modules of a block that are quantized together: all, or in true sequence those of one input.
  std::vector<Names> subsets_of(std::int64_t block) {
    InputOrder order;
    runner_.run(block, {.tap = &order, .most = 1});
    std::vector<Names> subsets = order.take();
    add_unseen(block, subsets);
    if (!quantizer_.true_sequential()) {
      for (std::size_t i = 1; i < subsets.size(); ++i) subsets[0].merge(subsets[i]);
      subsets.resize(std::min<std::size_t>(subsets.size(), 1));
    }
    for (Names& subset : subsets)
      std::erase_if(subset, [&](const std::string& name) { return !wanted_.contains(name); });
    std::erase_if(subsets, [](const Names& subset) { return subset.empty(); });
    return subsets;
  }

  /// Experts that the first sequence does not reach come last.
  void add_unseen(std::int64_t block, std::vector<Names>& subsets) {
    Names unseen;
    for (const nn::Linear* linear : quantizable_linears(decoder_.blocks[static_cast<std::size_t>(block)])) {
      const auto has = [&](const Names& subset) { return subset.contains(linear->name); };
      if (std::none_of(subsets.begin(), subsets.end(), has)) unseen.insert(linear->name);
    }
    subsets.push_back(std::move(unseen));
  }

  void solve_subset(std::int64_t block, const Names& subset) {
    const std::int64_t unit = units_++;
    if (restore(unit, block, subset)) return;
    StatisticsCollector statistics(subset, exec_);
    CrossStatistics cross(subset, &statistics, exec_);
    observe(block, subset, statistics, cross);
    const InputStatistics* previous = nullptr;
    std::vector<float> gram;
    std::vector<ModuleReport> reports;
    for (nn::Linear* linear : quantizable_linears(decoder_.blocks[static_cast<std::size_t>(block)])) {
      if (!subset.contains(linear->name)) continue;
      report(linear->name);
      const InputStatistics* input = statistics.find(linear->name);
      if (input == nullptr) {
        gram = unit_matrix(linear->inputs());  // an expert without tokens: nothing to make up for
      } else if (input != previous) {
        gram = input->matrix(2.0 / static_cast<double>(input->tokens), exec_.pool);
      }
      previous = input;
      const std::int64_t tokens = input == nullptr ? 0 : input->tokens;
      std::vector<float> shift;
      if (float_runner_ && tokens > 0) shift = cross.matrix(linear->name, 2.0 / static_cast<double>(tokens));
      reports.push_back(solve(*linear, gram, shift, tokens));
      reporter_.tell(reports.back());
    }
    if (task_.journal != nullptr) task_.journal->store(unit, reports, quantizer_);
  }

  void observe(std::int64_t block, const Names& subset, StatisticsCollector& statistics, CrossStatistics& cross) {
    // In true sequence all that leads to this subset's input is quantized by now.
    const bool final = quantizer_.true_sequential();
    if (!float_runner_) return runner_.run(block, {.tap = &statistics, .until = subset, .keep = final});
    const auto run_float = [&](std::int64_t sequence) {
      float_runner_->run(block,
                         {.tap = &cross.float_tap(), .until = subset, .keep = true, .first = sequence, .most = 1});
    };
    runner_.run(block, {.tap = &cross.quantized_tap(), .until = subset, .keep = final, .on_sequence = run_float});
  }

  /// Takes a unit from the journal, if an earlier run finished it.
  bool restore(std::int64_t unit, std::int64_t block, const Names& subset) {
    if (task_.journal == nullptr) return false;
    auto finished = task_.journal->load(unit, quantizer_, exec_);
    if (!finished) return false;
    Names found;
    for (const Journal::Finished& module : *finished) found.insert(module.report.module);
    check(found == subset, "block_quantize: a journal of other modules");
    for (nn::Linear* linear : quantizable_linears(decoder_.blocks[static_cast<std::size_t>(block)])) {
      for (Journal::Finished& module : *finished) {
        if (module.report.module != linear->name) continue;
        linear->weight = module.solved.linear.weight;
        quantizer_.add(linear->name, std::move(module.solved));
        reporter_.tell(module.report);
      }
    }
    return true;
  }

  /// `cross`: of the float model's inputs with these (float_target.h), or empty.
  ModuleReport solve(nn::Linear& linear, const std::vector<float>& gram, const std::vector<float>& cross,
                     std::int64_t tokens) {
    const std::int64_t rows = linear.outputs(), cols = linear.inputs();
    const auto finite = [](float v) { return std::isfinite(v); };
    if (!std::all_of(gram.begin(), gram.end(), finite) || !std::all_of(cross.begin(), cross.end(), finite)) {
      throw bad_input(linear.name, ": its inputs are not finite for this calibration data");
    }
    std::vector<float> weight = linear_values(linear, *task_.source, exec_);
    const Stopwatch watch;
    if (!cross.empty()) weight = float_target(weight, rows, cross, gram, kTargetDamp, task_.float_inputs, exec_);
    SolvedModule solved = quantizer_.solve(linear.name, weight, rows, cols, gram, exec_);
    if (!solved.linear.weight.empty()) linear.weight = solved.linear.weight;  // empty: a rehearsal (job_estimate.h)
    ModuleReport report = module_report_of(linear.name, {rows, cols}, tokens, solved, watch.seconds());
    report.rounded = report.rounded || tokens == 0;
    quantizer_.add(linear.name, std::move(solved));
    return report;
  }

  const BlockTask& task_;
  SolvedQuantizer& quantizer_;
  Exec& exec_;
  Names wanted_;
  ModuleReporter reporter_;
  WeightStore weights_;
  models::Decoder decoder_;
  BlockRunner runner_;
  models::Decoder float_decoder_;  ///< as the checkpoint has it
  std::unique_ptr<BlockRunner> float_runner_;
  std::int64_t units_ = 0;  ///< begun
};

}  // namespace

std::set<std::string> block_linears(std::shared_ptr<const Checkpoint> source, Exec& exec) {
  const WeightStore weights(std::move(source));
  models::Decoder decoder = models::build_decoder(weights, exec);
  std::set<std::string> names;
  for (nn::Block& block : decoder.blocks) {
    for (const nn::Linear* linear : quantizable_linears(block)) names.insert(linear->name);
  }
  return names;
}

std::int64_t calibration_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                               bool float_inputs, Exec& exec) {
  const WeightStore weights(std::move(source));
  models::Decoder decoder = models::build_decoder(weights, exec);
  const std::int64_t hidden = decoder.config.hidden_size;
  std::int64_t widest = hidden, largest = 0;
  for (nn::Block& block : decoder.blocks) {
    std::int64_t bytes = 0;
    for (const nn::Linear* linear : quantizable_linears(block)) {
      widest = std::max(widest, std::max(linear->inputs(), linear->outputs()));
      bytes += linear->weight.size_bytes();
    }
    largest = std::max(largest, bytes);
  }
  const std::int64_t streams = float_inputs ? 2 : 1;
  return streams * 4 * samples * seqlen * hidden + 4 * seqlen * (8 * hidden + 4 * widest) + largest +
         (float_inputs ? 24 * widest * widest + 4 * seqlen * widest : 0);
}

std::int64_t activation_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                              bool float_inputs, Exec& exec) {
  const WeightStore weights(std::move(source));
  const std::int64_t streams = float_inputs ? 2 : 1;
  return streams * 4 * samples * seqlen * models::build_decoder(weights, exec).config.hidden_size;
}

std::int64_t remembered_bytes(std::shared_ptr<const Checkpoint> source, std::int64_t samples, std::int64_t seqlen,
                              bool float_inputs, std::int64_t room, Exec& exec) {
  const WeightStore weights(std::move(source));
  models::Decoder decoder = models::build_decoder(weights, exec);
  const std::int64_t streams = float_inputs ? 2 : 1;
  std::int64_t most = 0;
  for (nn::Block& block : decoder.blocks) {
    std::int64_t left = room / streams, used = 0;
    for (const nn::Linear* linear : {&block.attention.o, &block.mlp.down}) {
      const std::int64_t bytes = 4 * samples * seqlen * linear->inputs();
      if (linear->weight.empty() || bytes > left) continue;
      left -= bytes;
      used += bytes;
    }
    most = std::max(most, streams * used);
  }
  return most;
}

void block_quantize(const BlockTask& task, SolvedQuantizer& quantizer, Exec& exec, const ProgressCallback& progress) {
  BlockQuantizer(task, quantizer, exec, progress).run();
  for (const std::string& module : task.modules) {
    check(quantizer.modules().contains(module), "block_quantize: a module of no block");
  }
}

void plain_quantize(const BlockTask& task, SolvedQuantizer& quantizer, Exec& exec, const ProgressCallback& progress) {
  check(!quantizer.needs_data(), "plain_quantize: a method that needs data");
  std::int64_t done = 0;
  for (const std::string& module : task.modules) {
    if (progress) progress({"quantizing", module, done++, static_cast<std::int64_t>(task.modules.size())});
    const View& view = task.source->at(module + ".weight");
    const std::vector<float> weight = view.to_f32();
    require_finite(weight, *task.source, module);
    SolvedModule solved = quantizer.solve(module, weight, view.dim(0), view.dim(1), {}, exec);
    if (task.on_module) task.on_module({.module = module, .shape = view.shape()});
    quantizer.add(module, std::move(solved));
  }
}

}  // namespace nibble
