// Where AWQ's factors go: which linears of a block share an input, and what in front of them can make it smaller so
// that the model computes the same.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "quant/awq/quantizer.h"

namespace nibble {

/// Linears of one input, and what is divided by the factors that multiply their columns.
struct AwqStep {
  enum class Into : std::uint8_t {
    nothing,     ///< no factors, only clipping
    norm,        ///< weight and bias of the norm
    linear,      ///< rows and bias of the linear before; what lies between is linear in each channel
    activation,  ///< a stored tensor that divides the activation's outputs
  };
  /// Whose output the original's loss looks at.
  enum class Inspect : std::uint8_t { linears, attention, mlp };

  std::vector<nn::Linear*> linears;  ///< not empty; a mixture's experts see parts of the input
  nn::Linear* router = nullptr;      ///< sees the input too and stays in floats; null: none
  Into into = Into::nothing;
  nn::Norm* norm = nullptr;
  nn::Linear* previous = nullptr;
  Inspect inspect = Inspect::linears;

  /// Names of what sees the input: the linears and the router.
  std::set<std::string, std::less<>> names() const;
  /// Memory of the Gram matrices of its inputs, in f64.
  std::int64_t gram_bytes() const;
};

/// The steps of a block, in AutoAWQ's order; they cover the linears in `wanted`, the modules that are quantized.
/// Factors go only where everything they change is quantized, a norm or a bias:
/// - norm -> q, k, v and norm -> gate, up (or the experts), unless the norm's output is also the residual
/// - v -> o with as many value heads as heads
/// - up -> down behind a gate or ReLU
/// - the activation of families whose files have a tensor for it -> down
std::vector<AwqStep> awq_steps(nn::Block& block, const std::set<std::string, std::less<>>& wanted);

/// The steps in runs that are observed in one pass: several while their Gram matrices take at most 2 GiB.
std::vector<std::vector<AwqStep>> awq_passes(std::vector<AwqStep> steps);

/// What a model's architecture says about quantizing it: the quantizer's activations and routers, and the linears that
/// can be chosen. Throws Error(bad_input) when nibble cannot run the model.
struct AwqModules {
  std::set<std::string> linears;
  std::map<std::string, std::string, std::less<>> activations;
  std::vector<std::string> routers;
  std::int64_t gram_bytes = 0;  ///< Gram matrices held at once, at most
};
AwqModules awq_modules(std::shared_ptr<const Checkpoint> source, Exec& exec);

}  // namespace nibble
