// Static activation scales by running a model over calibration data, as Quanto's Calibration(momentum, streamline)
// does: moving averages of the largest magnitude over the largest code. While it runs, inputs are quantized with the
// scales as they are so far; outputs are quantized during the first sequence only (streamline: nothing later needs them
// so).
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "quant/quanto/quantizer.h"
#include "run/model.h"

namespace nibble {

struct CalibrationOptions {
  double momentum = 0.9;   ///< of output scales; input scales always use 0.9, as the library does
  bool streamline = true;  ///< false: outputs stay quantized during the whole calibration
};

/// Collects the scales of linears whose activations are quantized while it is a model's Tap.
class ScaleCollector final : public Tap {
 public:
  ScaleCollector(DType codes, const CalibrationOptions& options) : codes_(codes), options_(options) {}

  /// The dtype in which a module's scales are computed and stored; modules not named here are not observed.
  void observe(const std::string& module, DType dtype) { modules_.emplace(module, State{dtype, {}}); }
  /// Between two sequences.
  void end_sequence() { first_ = false; }
  /// Modules that no sequence reached keep scales of 1.
  std::map<std::string, quanto::ActivationScales> scales() const;

  void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override;
  void linear_output(std::string_view module, const float* y, std::int64_t m, std::int64_t n) override;
  void static_scales(std::string_view module, StaticScales& scales) override;

 private:
  struct State {
    DType dtype;
    quanto::ActivationScales scales;
  };
  void update(float& scale, const State& state, const float* values, std::int64_t count, double momentum) const;

  DType codes_;
  CalibrationOptions options_;
  bool first_ = true;
  std::map<std::string, State, std::less<>> modules_;
};

/// Runs `model` (loaded from a Quanto checkpoint with quantized activations) over the sequences, each in one pass.
/// `every_position`: the output head is quantized too and must see all positions.
void collect_scales(Model& model, ScaleCollector& collector, std::span<const std::vector<std::int32_t>> sequences,
                    bool every_position, Exec& exec, const ProgressCallback& progress = {});

/// What is calibrated: modules of a float checkpoint, quantized as `config` says.
struct CalibrationTask {
  const Checkpoint& source;
  const quanto::Config& config;
  const ModuleSelection& selection;
  std::filesystem::path folder;  ///< where the quantized model lies meanwhile; removed at the end, with all it held
};

/// Quantizes the weights into task.folder, runs that model over the sequences and gives the scales by module. Throws
/// Error(bad_input) when nibble cannot run the model.
std::map<std::string, quanto::ActivationScales> calibrate_activations(
    const CalibrationTask& task, std::span<const std::vector<std::int32_t>> sequences,
    const CalibrationOptions& options, Exec& exec, const ProgressCallback& progress = {});

}  // namespace nibble
