#include "calib/job_estimate.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "base/stopwatch.h"
#include "calib/block_quantizer.h"
#include "calib/gram.h"
#include "models/decoder.h"
#include "nn/each_linear.h"

namespace nibble {
namespace {

/// Tokens of the sequence that is run, and rows and columns of a weight that are solved, at most.
constexpr std::int64_t kTokens = 512, kRows = 512, kCols = 1024;

/// Solves corners of weights and keeps what whole ones would have taken; weights stay as they are.
class Sampler final : public SolvedQuantizer {
 public:
  /// `solves`: false to run the model only.
  Sampler(SolvedQuantizer& method, bool solves)
      : SolvedQuantizer(method.scheme().name), method_(method), solves_(solves) {}

  double spent = 0;                 ///< seconds in solve()
  std::map<Shape, double> of_work;  ///< seconds per unit of work, by the shape of the whole weight

  SolvedModule solve(const std::string& module, std::span<const float> weight, std::int64_t rows, std::int64_t cols,
                     std::span<const float> gram, Exec& exec) override {
    if (!solves_) return {};
    const std::int64_t r = std::min(rows, kRows), c = std::min(cols, kCols);
    std::vector<float> w(static_cast<std::size_t>(r * c)), g(static_cast<std::size_t>(c * c));
    for (std::int64_t i = 0; i < r; ++i) std::copy_n(weight.data() + i * cols, c, w.data() + i * c);
    for (std::int64_t i = 0; i < c; ++i) std::copy_n(gram.data() + i * cols, c, g.data() + i * c);
    const Stopwatch watch;
    method_.solve(module, w, r, c, g, exec);
    const double seconds = watch.seconds();
    spent += seconds;
    of_work[{rows, cols}] = seconds / method_.solve_work(r, c);
    return {};
  }
  bool true_sequential() const override { return method_.true_sequential(); }

  std::string describe(const std::string& module, const Shape& shape, DType dtype) const override {
    return method_.describe(module, shape, dtype);
  }
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& shape, DType dtype) const override {
    return method_.outputs(module, shape, dtype);
  }
  std::int64_t working_bytes(const std::string& module, const Shape& shape, DType dtype, int threads) const override {
    return method_.working_bytes(module, shape, dtype, threads);
  }

 private:
  SolvedQuantizer& method_;
  bool solves_;
};

/// Ids from all over the vocabulary, so that statistics look like statistics.
std::vector<std::int32_t> some_ids(std::int64_t count, std::int64_t vocab) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>((i * 7919 + 13) % vocab));
  return ids;
}

std::vector<std::string> linears_of_first_block(const models::Decoder& decoder, const std::set<std::string>& wanted) {
  std::vector<std::string> names;
  nn::each_block_linear(decoder.blocks.front(), [&](const nn::Linear& linear) {
    if (wanted.contains(linear.name)) names.push_back(linear.name);
  });
  return names;
}

/// Seconds for AWQ's passes over the first block.
double seconds_to_observe(models::Decoder& decoder, const AwqTask& task, Exec& exec) {
  BlockRunner runner(decoder, task.sequences, exec);
  runner.run(0, {});  // reads the weights from the disk
  const Stopwatch watch;
  const std::set<std::string, std::less<>> wanted(task.modules.begin(), task.modules.end());
  for (const std::vector<AwqStep>& pass : awq_passes(awq_steps(decoder.blocks.front(), wanted))) {
    std::set<std::string, std::less<>> names;
    for (const AwqStep& step : pass) names.merge(step.names());
    StatisticsCollector statistics(names, exec);
    runner.run(0, {.tap = &statistics});
  }
  if (task.loss == AwqLoss::output) runner.run(0, {});
  return watch.seconds();
}

/// What the search and rounding of a weight grow with.
double work_of(const std::vector<std::string>& modules, const Checkpoint& source) {
  double work = 0;
  for (const std::string& module : modules) {
    const Shape& shape = source.at(module + ".weight").shape();
    const auto cols = static_cast<double>(shape.at(1));
    work += static_cast<double>(shape.at(0)) * cols * cols;
  }
  return work;
}

}  // namespace

JobEstimate estimate_job(std::shared_ptr<const Checkpoint> source, const std::vector<std::string>& modules,
                         std::int64_t tokens, std::int64_t seqlen, std::int64_t remember_bytes,
                         SolvedQuantizer& quantizer, Exec& exec) {
  const WeightStore weights(source);
  const models::Decoder decoder = models::build_decoder(weights, exec);
  check(!decoder.blocks.empty(), "estimate_job: no block");
  const std::int64_t length = std::min(seqlen, kTokens);
  BlockTask task;
  task.source = source;
  task.modules = linears_of_first_block(decoder, {modules.begin(), modules.end()});
  task.sequences = {some_ids(length, decoder.config.vocab_size)};
  task.remember_bytes = remember_bytes / std::max<std::int64_t>(tokens, 1) * length;
  if (task.modules.empty()) return {};  // a choice of modules that leaves out the first block is not worth an estimate
  JobEstimate estimate;
  double pass = 0;
  std::map<Shape, double> of_work;
  for (int round = 0; round < 2; ++round) {  // the first reads the weights from the disk
    Sampler sampler(quantizer, round > 0);
    const Stopwatch whole;
    block_quantize(task, sampler, exec);
    pass = whole.seconds() - sampler.spent;
    of_work = std::move(sampler.of_work);
    BlockRunner runner(decoder, task.sequences, exec);
    const Stopwatch advancing;
    runner.run(0, {.advance = true});
    pass += advancing.seconds();
  }
  estimate.observing =
      pass * static_cast<double>(tokens) / static_cast<double>(length) * static_cast<double>(decoder.blocks.size());
  double rate = 0;
  for (const auto& [shape, seconds] : of_work) rate += seconds / static_cast<double>(of_work.size());
  for (const std::string& module : modules) {
    const Shape& shape = source->at(module + ".weight").shape();
    const auto known = of_work.find(shape);
    const double of_one = known == of_work.end() ? rate : known->second;
    estimate.solving += of_one * quantizer.solve_work(shape.at(0), shape.at(1));
  }
  return estimate;
}

JobEstimate estimate_job(const AwqTask& task, const awq::QuantizerConfig& config, std::int64_t tokens,
                         std::int64_t seqlen, Exec& exec) {
  const WeightStore weights(task.source);
  models::Decoder decoder = models::build_decoder(weights, exec);
  check(!decoder.blocks.empty(), "estimate_job: no block");
  const std::int64_t length = std::min(seqlen, kTokens);
  AwqTask part;
  part.source = task.source;
  part.modules = linears_of_first_block(decoder, {task.modules.begin(), task.modules.end()});
  part.sequences = {some_ids(length, decoder.config.vocab_size)};
  part.loss = task.loss;
  part.sample_rows = kRows;
  if (part.modules.empty()) return {};
  double running = 0, solving = 0;  // of the first block
  part.on_step = [&](const AwqReport& report) { running += report.running; };
  part.on_module = [&](const ModuleReport& report) { solving += report.seconds; };
  awq::Quantizer rehearsal(config);
  awq_quantize(part, rehearsal, exec);
  const double blocks = static_cast<double>(decoder.blocks.size());
  const double times = work_of(task.modules, *task.source) / work_of(part.modules, *task.source);
  JobEstimate estimate;
  estimate.observing = (seconds_to_observe(decoder, part, exec) * blocks + running * times) *
                       static_cast<double>(tokens) / static_cast<double>(length);
  estimate.solving = std::max(0.0, solving - running) * times;
  return estimate;
}

}  // namespace nibble
