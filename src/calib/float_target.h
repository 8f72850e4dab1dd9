// What a linear should compute when its inputs come through quantized blocks: not W times those inputs, but W times the
// inputs that the float model would give it. The weight that does so best, W C (G + l I)^-1 with G = X'X of the inputs
// that come and C = F'X of the float inputs F with them, then takes the weight's place in any solver. GPTAQ (Li et al.
// 2025, arXiv:2504.02692) and QEP (Arai and Ichikawa 2025, arXiv:2504.09629) rest on the same idea.
#pragma once
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "calib/shared_inputs.h"
#include "device/device.h"

namespace nibble {

/// Collects F'X sequence by sequence: first the float model's block runs under float_tap(), then the quantized model's
/// under quantized_tap(). Sums are taken as in StatisticsCollector; the same bits for any number of threads.
class CrossStatistics {
 public:
  using Names = std::set<std::string, std::less<>>;

  /// `inner` (may be null) is told all that quantized_tap() is told. It and `exec` must outlive the object.
  CrossStatistics(Names modules, Tap* inner, Exec& exec);

  Tap& float_tap() { return float_tap_; }
  Tap& quantized_tap() { return quantized_tap_; }

  /// F'X [cols, cols], times `factor`; empty when no token reached the module, or the two models gave it different
  /// numbers of tokens (experts that their routers chose differently).
  std::vector<float> matrix(std::string_view module, double factor) const;

 private:
  class FloatTap final : public Tap {
   public:
    explicit FloatTap(CrossStatistics& owner) : owner_(owner) {}
    void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override;
    void linear_output(std::string_view, const float*, std::int64_t, std::int64_t) override { shared_.output(); }

   private:
    CrossStatistics& owner_;
    SharedInputs shared_;
  };
  class QuantizedTap final : public Tap {
   public:
    QuantizedTap(CrossStatistics& owner, Tap* inner) : owner_(owner), inner_(inner) {}
    void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override;
    void linear_output(std::string_view module, const float* y, std::int64_t m, std::int64_t n) override;
    void static_scales(std::string_view module, StaticScales& scales) override;

   private:
    CrossStatistics& owner_;
    Tap* inner_;
  };

  /// Of one input.
  struct Sums {
    std::int64_t cols = 0;
    std::vector<float> floats;  ///< [tokens, cols]: the float model's input for this sequence
    std::int64_t tokens = 0;    ///< of this sequence
    std::vector<double> cross;  ///< [cols, cols]
    bool differs = false;
  };
  void add(Sums& to, const float* x, std::int64_t m);

  Names modules_;
  Exec& exec_;
  FloatTap float_tap_;
  QuantizedTap quantized_tap_;
  SharedInputs shared_;  ///< of the quantized model
  std::map<std::string, Sums, std::less<>> of_leader_;
  std::vector<float> floats_transposed_, transposed_, product_;
};

/// W + part * (W C (G + l I)^-1 - W), with l = damp times the mean diagonal of G, also added to C so that equal inputs
/// give W back. `weight` [rows, cols], `cross` and `gram` [cols, cols] times the same factor. Damping is raised as in
/// gptq_quantize; where none up to 1 makes the matrix positive definite, the weight itself.
std::vector<float> float_target(std::span<const float> weight, std::int64_t rows, std::span<const float> cross,
                                std::span<const float> gram, double damp, double part, Exec& exec);

}  // namespace nibble
