#include "calib/activation_scales.h"

#include <algorithm>

#include "base/error.h"
#include "quant/common/symmetric.h"
#include "quant/common/values.h"
#include "quant/quantize_checkpoint.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// A folder that goes with everything in it.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) { remove(); }
  ~TemporaryFolder() { remove(); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  void remove() const {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  fs::path path_;
};

struct OpenSequence {
  explicit OpenSequence(Model& m) : model(m), id(m.open_sequence()) {}
  ~OpenSequence() { model.close_sequence(id); }
  OpenSequence(const OpenSequence&) = delete;
  OpenSequence& operator=(const OpenSequence&) = delete;
  Model& model;
  std::int64_t id;
};

}  // namespace

void ScaleCollector::update(float& scale, const State& state, const float* values, std::int64_t count,
                            double momentum) const {
  const float largest = round_to(state.dtype, largest_magnitude(values, count));
  if (!(largest > 0)) return;  // a scale of zero would divide by zero later
  const float fresh = round_to(state.dtype, largest / largest_code(codes_));
  if (scale == 1) {
    scale = fresh;
    return;
  }
  const float old_part = round_to(state.dtype, static_cast<float>(momentum) * scale);
  const float new_part = round_to(state.dtype, fresh * static_cast<float>(1.0 - momentum));
  scale = round_to(state.dtype, old_part + new_part);
}

void ScaleCollector::linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) {
  const auto found = modules_.find(module);
  if (found != modules_.end()) update(found->second.scales.input, found->second, x, m * k, 0.9);
}

void ScaleCollector::linear_output(std::string_view module, const float* y, std::int64_t m, std::int64_t n) {
  const auto found = modules_.find(module);
  if (found != modules_.end()) update(found->second.scales.output, found->second, y, m * n, options_.momentum);
}

void ScaleCollector::static_scales(std::string_view module, StaticScales& scales) {
  const auto found = modules_.find(module);
  if (found == modules_.end()) return;
  scales = {found->second.scales.input, found->second.scales.output, first_ || !options_.streamline};
}

std::map<std::string, quanto::ActivationScales> ScaleCollector::scales() const {
  std::map<std::string, quanto::ActivationScales> out;
  for (const auto& [module, state] : modules_) out.emplace(module, state.scales);
  return out;
}

void collect_scales(Model& model, ScaleCollector& collector, std::span<const std::vector<std::int32_t>> sequences,
                    bool every_position, Exec& exec, const ProgressCallback& progress) {
  Exec observed = exec;
  observed.tap = &collector;
  std::vector<float> logits;
  std::int64_t done = 0;
  for (const std::vector<std::int32_t>& ids : sequences) {
    if (progress) progress({"calibrating", "", done, static_cast<std::int64_t>(sequences.size())});
    const OpenSequence sequence(model);
    BatchItem item;
    item.sequence = sequence.id;
    item.ids = ids;
    item.all_logits = every_position;
    model.forward({&item, 1}, logits, observed);
    collector.end_sequence();
    ++done;
  }
}

std::map<std::string, quanto::ActivationScales> calibrate_activations(
    const CalibrationTask& task, std::span<const std::vector<std::int32_t>> sequences,
    const CalibrationOptions& options, Exec& exec, const ProgressCallback& progress) {
  check(task.config.activations.has_value(), "calibrate_activations: no type of activations");
  const TemporaryFolder folder(task.folder);
  quanto::Quantizer quantizer(task.config);
  const QuantizationPlan plan = plan_quantization(task.source, quantizer, task.selection, exec.pool.size());
  QuantizeOptions writing;
  writing.out = folder.path();
  quantize_checkpoint(task.source, plan, quantizer, writing, exec.pool, progress);

  ModelOptions model_options;
  for (const std::vector<std::int32_t>& ids : sequences) {
    model_options.prefill_chunk = std::max(model_options.prefill_chunk, static_cast<std::int64_t>(ids.size()));
  }
  const std::unique_ptr<Model> model = Model::load(Checkpoint::open(folder.path().string()), model_options, exec);
  ScaleCollector collector(quanto::code_dtype(*task.config.activations), options);
  bool head = false;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (tensor.module.empty()) continue;
    collector.observe(tensor.module, tensor.source->view.dtype());
    head = head || tensor.module == "lm_head";
  }
  collect_scales(*model, collector, sequences, head, exec, progress);
  return collector.scales();
}

}  // namespace nibble
