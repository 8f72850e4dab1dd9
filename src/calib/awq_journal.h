// A block of AWQ in the journal of a long job. Blocks run in floats, so a finished one leaves no trace in the model:
// its tensors, the factors that they were scaled by, and what replaces norms, biases and routers are all there is.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "calib/awq_calibration.h"
#include "calib/journal.h"

namespace nibble {

struct AwqBlockRecord {
  std::vector<AwqReport> steps;
  std::vector<ModuleReport> modules;
  std::vector<std::string> replaced;  ///< tensors for which awq::Quantizer has a replacement
};

/// Stores a block's modules and replacements from `quantizer` as unit number `unit`.
void store_awq_block(Journal& journal, std::int64_t unit, const AwqBlockRecord& record,
                     const awq::Quantizer& quantizer);

/// The inverse: puts them into `quantizer`; reports are marked as restored. nullopt when no earlier run finished the
/// unit or its files were damaged since. Throws Error(bad_input) when it contradicts itself.
std::optional<AwqBlockRecord> load_awq_block(Journal& journal, std::int64_t unit, awq::Quantizer& quantizer,
                                             Exec& exec);

}  // namespace nibble
