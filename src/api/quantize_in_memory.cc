#include "api/quantize_in_memory.h"

#include <cstring>

#include "base/error.h"
#include "base/process_memory.h"
#include "calib/awq_calibration.h"
#include "calib/block_quantizer.h"
#include "quant/quantize_checkpoint.h"
#include "quant/quanto/quantizer.h"

namespace nibble {
namespace {

quanto::Config parsed(const QuantoConfig& config) {
  if (config.activations)
    throw bad_input(
        "QuantoConfig: activations need calibration data: quantize with `nibble quantize --activations` and "
        "load the result");
  quanto::Config out;
  const auto qtype = quanto::qtype_from_name(config.weights);
  if (!qtype) throw bad_input("QuantoConfig: unknown weights ", printable(config.weights));
  out.weights.qtype = *qtype;
  out.modules_to_not_convert = config.modules_to_not_convert;
  return out;
}

/// Keeps the quantized tensors and the source alive.
struct Owner {
  std::shared_ptr<const Checkpoint> source;
  std::vector<Tensor> tensors;
};

void add_quantized(const PlannedTensor& planned, ModuleQuantizer& quantizer, ThreadPool& pool, Owner& owner,
                   std::vector<TensorEntry>& out) {
  const std::vector<TensorPlan> outputs = quantizer.exact_outputs(planned.module, *planned.source, pool);
  std::size_t next = 0;
  quantizer.quantize(planned.module, *planned.source, pool,
                     [&](const std::string& name, std::span<const std::byte> bytes) {
                       const TensorPlan& plan = outputs.at(next++);
                       check(plan.name == name, "quantize_in_memory: tensors come in another order than planned");
                       Tensor tensor(plan.shape, plan.dtype);
                       check(tensor.bytes().size() == bytes.size(), "quantize_in_memory: size of a tensor");
                       if (!bytes.empty()) std::memcpy(tensor.data(), bytes.data(), bytes.size());
                       out.push_back({name, tensor.view(), planned.source->file, {}});
                       owner.tensors.push_back(std::move(tensor));
                     });
}

}  // namespace

std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     ModuleQuantizer& quantizer, const ModuleSelection& selection,
                                                     ThreadPool& pool, const ProgressCallback& progress) {
  const QuantizationPlan plan = plan_quantization(*source, quantizer, selection, pool.size());
  const auto owner = std::make_shared<Owner>();
  owner->source = source;
  CheckpointParts parts;
  std::int64_t done = 0;
  for (const PlannedTensor& planned : plan.tensors) {
    if (progress) progress({"quantizing", planned.source->name, done, plan.bytes_in});
    if (planned.module.empty()) {
      TensorEntry entry = *planned.source;
      if (const Tensor* replaced = quantizer.replacement(entry.name)) {
        entry.view = replaced->view();
        owner->tensors.push_back(*replaced);
      }
      parts.tensors.push_back(std::move(entry));
    } else {
      add_quantized(planned, quantizer, pool, *owner, parts.tensors);
    }
    done += planned.bytes_in;
  }
  parts.folder = source->folder();
  parts.config = quantized_config(source->config(), plan);
  parts.metadata = source->metadata();
  for (auto& [name, content] : quantizer.side_files(plan.modules)) parts.files[name] = content;
  parts.owner = owner;
  return Checkpoint::in_memory(std::move(parts));
}

std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     SolvedQuantizer& quantizer, CalibratedSelection task, Exec& exec,
                                                     const ProgressCallback& progress) {
  task.selection.only = block_linears(source, exec);
  BlockTask calibration;
  calibration.source = source;
  calibration.modules = plan_quantization(*source, quantizer, task.selection, exec.pool.size()).modules;
  calibration.sequences = std::move(task.sequences);
  calibration.remember_bytes = physical_bytes() / kPartForRemembering;
  block_quantize(calibration, quantizer, exec, progress);
  return quantize_in_memory(std::move(source), quantizer, task.selection, exec.pool, progress);
}

std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     awq::QuantizerConfig config, CalibratedSelection task, Exec& exec,
                                                     const ProgressCallback& progress) {
  AwqModules modules = awq_modules(source, exec);
  config.activations = std::move(modules.activations);
  config.never = std::move(modules.routers);
  task.selection.only = std::move(modules.linears);
  awq::Quantizer quantizer(std::move(config));
  AwqTask calibration;
  calibration.source = source;
  calibration.modules = plan_quantization(*source, quantizer, task.selection, exec.pool.size()).modules;
  calibration.sequences = std::move(task.sequences);
  awq_quantize(calibration, quantizer, exec, progress);
  return quantize_in_memory(std::move(source), quantizer, task.selection, exec.pool, progress);
}

std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     const QuantoConfig& config, ThreadPool& pool,
                                                     const ProgressCallback& progress) {
  const quanto::Config quanto_config = parsed(config);
  quanto::Quantizer quantizer(quanto_config);
  return quantize_in_memory(std::move(source), quantizer, quanto::selection_of(quanto_config), pool, progress);
}

}  // namespace nibble
