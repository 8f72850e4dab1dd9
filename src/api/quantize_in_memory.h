// Quantizing while a model loads: the checkpoint that `nibble quantize` would write, kept in memory.
#pragma once
#include <memory>

#include "base/progress.h"
#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"
#include "nibble/nibble.h"
#include "quant/awq/quantizer.h"
#include "quant/quantizer.h"
#include "quant/solved_quantizer.h"

namespace nibble {

/// The tensors of `source`, those of modules that `selection` chooses replaced by what `quantizer` makes of them; the
/// others stay views of it. Throws Error(bad_input) when the checkpoint is quantized already or nothing is selected.
std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     ModuleQuantizer& quantizer, const ModuleSelection& selection,
                                                     ThreadPool& pool, const ProgressCallback& progress = {});

/// For methods that calibrate: the data, and a choice among the linears of the model's blocks.
struct CalibratedSelection {
  std::vector<std::vector<std::int32_t>> sequences;
  ModuleSelection selection;  ///< `only` is found from the model
};
/// Weights solved block by block (GPTQ, AQLM); exec.compute is the arithmetic in which the model runs meanwhile.
std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     SolvedQuantizer& quantizer, CalibratedSelection task, Exec& exec,
                                                     const ProgressCallback& progress = {});
/// AWQ; activations and routers of `config` are found from the model.
std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     awq::QuantizerConfig config, CalibratedSelection task, Exec& exec,
                                                     const ProgressCallback& progress = {});

/// The same for Quanto: the tensors of `source`, those of linear modules replaced by their quantized parts; the others
/// stay views of it. Throws Error(bad_input) when the config is wrong or the checkpoint is quantized already.
std::shared_ptr<const Checkpoint> quantize_in_memory(std::shared_ptr<const Checkpoint> source,
                                                     const QuantoConfig& config, ThreadPool& pool,
                                                     const ProgressCallback& progress = {});

}  // namespace nibble
