// Methods whose codes calibration chooses: one weight after the other is solved from its inputs' Gram matrix
// (calib/block_quantizer.h runs the model) and kept until the pipeline writes it. A method adds its algorithm and what
// its format's config says.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/quantizer.h"
#include "quant/scheme.h"

namespace nibble {

/// One weight after quantizing.
struct SolvedModule {
  LinearWeights linear;               ///< as the scheme's reader would load it, to run the model on
  std::vector<StoredTensor> tensors;  ///< in the order of ModuleQuantizer::outputs
  double loss = 0;                    ///< what the method minimizes: the outputs' squared error, mean of the tokens
  double damp = 0;                    ///< of the mean diagonal, added to the diagonal; 0 for methods without it
  std::int64_t dead = 0;              ///< inputs that were always zero
  bool rounded = false;               ///< rounded to nearest instead: nothing numerically sound was found
};

class SolvedQuantizer : public ModuleQuantizer {
 public:
  /// `scheme`: the name of the format that solve() makes.
  explicit SolvedQuantizer(std::string_view scheme);

  /// Chooses codes for `weight` [rows, cols], finite f32. `gram` [cols, cols] is 2 / tokens * X'X of its inputs, or the
  /// unit matrix when no token reached it; empty when there is no calibration (only where !needs_data()). The same
  /// result for any number of threads. Throws Error(bad_input) beginning with the module's name when the format cannot
  /// hold it.
  virtual SolvedModule solve(const std::string& module, std::span<const float> weight, std::int64_t rows,
                             std::int64_t cols, std::span<const float> gram, Exec& exec) = 0;

  /// Whether solve() needs matrices, and so a model that runs and calibration data.
  virtual bool needs_data() const { return true; }

  /// Whether inside a block linears see inputs that come through those solved before them; else one pass observes all.
  virtual bool true_sequential() const = 0;

  /// How much work solve() is for a weight [rows, cols], in units of its own: what a time measured on a small weight is
  /// scaled up by. Default: a factorization of the matrix and an update of the whole weight by column.
  virtual double solve_work(std::int64_t rows, std::int64_t cols) const;

  /// The format.
  const Scheme& scheme() const { return *scheme_; }

  /// Keeps the tensors of a module; replaces what was kept before.
  void add(const std::string& module, SolvedModule solved);
  /// Without their `linear`: the tensors say it all.
  const std::map<std::string, SolvedModule>& modules() const { return modules_; }

  std::string note(const std::string& module, const Shape& weight, DType dtype) const override;
  void quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) override;
  void open_result(std::shared_ptr<const Checkpoint> written) override;
  /// Turns decoded values of a row of `module` [cols] to what the source's weight has there, for methods that store it
  /// in another form. Default: they are.
  virtual void as_in_source(const std::string& module, std::int64_t row, std::span<float> values) const;
  /// The written tensors must have the bytes that solve() gave.
  QuantizationError verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const override;

 private:
  const Scheme* scheme_;
  std::map<std::string, SolvedModule> modules_;
  std::shared_ptr<const Checkpoint> written_;
  std::unique_ptr<SchemeReader> result_;
};

}  // namespace nibble
