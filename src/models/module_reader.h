// Reads the modules of a model by name and checks each against the sizes that config.json gives, whatever scheme stored
// the linears. All errors name folder and tensor.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/linear.h"
#include "nn/norm.h"
#include "quant/scheme.h"

namespace nibble::models {

/// What a checkpoint may be wrapped in: nothing, torch.nn.DataParallel, torch.compile.
inline constexpr std::string_view kWraps[] = {"", "module.", "_orig_mod."};

class ModuleReader {
 public:
  /// Both arguments must outlive the reader.
  ModuleReader(const WeightStore& weights, Exec& exec) : weights_(weights), exec_(exec) {}

  /// The checkpoint's folder, for messages.
  std::string place() const { return weights_.checkpoint().folder().string(); }
  const WeightStore& weights() const { return weights_; }

  /// What stands in front of all names: the first of `prefixes`, alone or wrapped by torch.nn.DataParallel or
  /// torch.compile, under which there is a tensor `probe`. Error(bad_input) when there is none: the checkpoint is not
  /// `hf_class`'s.
  std::string find_prefix(std::span<const std::string_view> prefixes, std::string_view probe,
                          std::string_view hf_class) const;

  struct Size {
    std::int64_t outputs, inputs;
  };
  nn::Linear linear(const std::string& module, Size size, bool bias) const;
  /// The same from weights that are read already.
  nn::Linear linear(const std::string& module, LinearWeights read, Size size, bool bias) const;
  /// `module`.weight and, for LayerNorm, `module`.bias (or, from older checkpoints, gamma and beta).
  nn::Norm norm(const std::string& module, nn::NormKind kind, double eps, std::int64_t size) const;
  /// A float tensor of this shape, all its values.
  std::vector<float> values(const std::string& tensor, const Shape& shape) const;
  /// A float tensor of this shape, where it lies, as a matrix of `rows` rows (which divide its elements).
  QTensor matrix(const std::string& tensor, const Shape& shape, std::int64_t rows) const;

  /// A float tensor of this shape as it lies.
  const View& checked(const std::string& tensor, const Shape& shape) const;

 private:
  void check_shape(const std::string& tensor, const Shape& found, const Shape& expected) const;
  const WeightStore& weights_;
  Exec& exec_;
};

}  // namespace nibble::models
