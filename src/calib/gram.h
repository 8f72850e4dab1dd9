// Statistics of the inputs of linears while a model runs: what GPTQ, AWQ and others choose codes by. Linears that get
// the same input (q, k, v; gate, up) share one set.
#pragma once
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "calib/shared_inputs.h"
#include "device/device.h"

namespace nibble {

/// Of one input [tokens, cols].
struct InputStatistics {
  std::int64_t cols = 0;
  std::int64_t tokens = 0;
  std::vector<double> gram;     ///< [cols, cols]: X'X; only the lower triangle is kept
  std::vector<double> abs_sum;  ///< [cols]
  std::vector<float> abs_max;   ///< [cols]

  /// The whole symmetric matrix times `factor`, in f32.
  std::vector<float> matrix(double factor, ThreadPool& pool) const;
};

/// Products of at most this many tokens are summed in f32 before they go to f64.
inline constexpr std::int64_t kStatisticsTokens = 512;

/// to [channels, channels] += A B' for A and B [channels, tokens], with tokens <= kStatisticsTokens.
struct ProductSums {
  const float* a = nullptr;
  const float* b = nullptr;
  std::int64_t channels = 0, tokens = 0;
  bool lower = false;  ///< only the lower triangle is asked for
  double* to = nullptr;
};
/// The same bits for any number of threads. `scratch` is kept from call to call.
void add_products(const ProductSums& sums, std::vector<float>& scratch, Exec& exec);

/// Collects while it is a model's Tap. Products are summed in f32 within a few hundred tokens and in f64 beyond; the
/// same bits for any number of threads.
class StatisticsCollector final : public Tap {
 public:
  /// `exec`: where products run; may be the model's own.
  StatisticsCollector(std::set<std::string, std::less<>> modules, Exec& exec)
      : modules_(std::move(modules)), exec_(exec) {}

  /// nullptr when no input was seen.
  const InputStatistics* find(std::string_view module) const;

  void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override;
  void linear_output(std::string_view, const float*, std::int64_t, std::int64_t) override { shared_.output(); }

 private:
  void add(InputStatistics& to, const float* x, std::int64_t m);
  /// The sums of channels [first, first + count), and their rows of transposed_.
  void add_channels(InputStatistics& to, const float* x, std::int64_t m, std::int64_t first, std::int64_t count);

  std::set<std::string, std::less<>> modules_;
  Exec& exec_;
  SharedInputs shared_;
  std::map<std::string, InputStatistics, std::less<>> of_leader_;
  std::vector<float> transposed_, product_;
};

}  // namespace nibble
