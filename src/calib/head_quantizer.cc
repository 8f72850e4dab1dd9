#include "calib/head_quantizer.h"

#include "base/error.h"
#include "base/stopwatch.h"
#include "calib/gram.h"
#include "calib/linear_values.h"
#include "run/model.h"

namespace nibble {
namespace {

/// The Gram matrix of the head's inputs, 2 / tokens * X'X; sets `tokens`.
std::vector<float> input_matrix(const HeadTask& task, Exec& exec, const ProgressCallback& progress,
                                std::int64_t& tokens) {
  const std::unique_ptr<Model> model = Model::load(task.source, {}, exec);
  StatisticsCollector statistics({task.module}, exec);
  Exec observed = exec;
  observed.tap = &statistics;
  std::int64_t done = 0;
  for (const std::vector<std::int32_t>& ids : task.sequences) {
    if (progress) progress({"calibrating", task.module, done++, static_cast<std::int64_t>(task.sequences.size())});
    if (!ids.empty()) for_each_logits(*model, ids, observed, [](std::int64_t, std::int64_t, const float*) {});
  }
  const InputStatistics* input = statistics.find(task.module);
  if (input == nullptr) throw bad_input(printable(task.module), ": is no output head that calibration data reaches");
  tokens = input->tokens;
  return input->matrix(2.0 / static_cast<double>(input->tokens), exec.pool);
}

}  // namespace

ModuleReport quantize_head(const HeadTask& task, SolvedQuantizer& quantizer, Exec& exec,
                           const ProgressCallback& progress) {
  check(!task.sequences.empty() || !quantizer.needs_data(), "quantize_head: a method that needs data");
  const View& view = task.weight->view;
  const std::vector<float> weight = view.to_f32();
  require_finite(weight, *task.source, task.module);
  std::int64_t tokens = 0;
  std::vector<float> gram;
  if (!task.sequences.empty()) gram = input_matrix(task, exec, progress, tokens);
  const Stopwatch watch;
  SolvedModule solved = quantizer.solve(task.module, weight, view.dim(0), view.dim(1), gram, exec);
  ModuleReport report = module_report_of(task.module, view.shape(), tokens, solved, watch.seconds());
  quantizer.add(task.module, std::move(solved));
  return report;
}

}  // namespace nibble
