// How one module came out of calibration: a line of quantize.jsonl.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"
#include "quant/solved_quantizer.h"
#include "tensor/view.h"

namespace nibble {

/// What AWQ's search for factors of a module's inputs found.
struct FactorReport {
  double ratio = -1;      ///< -1: none were better than plain rounding
  double plain_loss = 0;  ///< without factors
};

struct ModuleReport {
  std::string module;
  Shape shape;                            ///< [outputs, inputs]
  std::int64_t tokens = 0;                ///< that reached it
  double loss = 0;                        ///< SolvedModule::loss, or AwqReport::loss; not finite: not known
  double damp = 0;                        ///< more than asked for where the matrix was not positive definite
  std::int64_t dead = 0;                  ///< inputs that were always zero
  bool rounded = false;                   ///< no statistics or no damping that helped: rounded to nearest
  double seconds = 0;                     ///< that solving took, without observing its inputs
  std::int64_t resident_bytes = 0;        ///< memory of the process afterwards
  std::optional<FactorReport> factors{};  ///< where they were searched
  bool restored = false;                  ///< from the journal of an earlier run; not stored
};

/// Of a module that `solved` is the result for, after `seconds`, with the memory that the process holds now.
ModuleReport module_report_of(const std::string& module, const Shape& shape, std::int64_t tokens,
                              const SolvedModule& solved, double seconds);

/// {"module": "model.layers.0.mlp.up_proj", "shape": [512, 192], ...}.
Json json_of(const ModuleReport& report);
/// The inverse; Error(bad_input) beginning with `where`.
ModuleReport module_report_of(const Json& json, const std::string& where);

}  // namespace nibble
