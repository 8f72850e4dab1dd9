// Parameters and bytes of a model's weights; what several modules share counts once.
#pragma once
#include <cstdint>
#include <set>
#include <vector>

#include "nn/linear.h"
#include "nn/norm.h"

namespace nibble {

struct WeightCount {
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;

  void floats(const std::vector<float>& values) {
    parameters += static_cast<std::int64_t>(values.size());
    bytes += static_cast<std::int64_t>(values.size() * sizeof(float));
  }
  void matrix(const QTensor& w) {
    if (w.empty() || !seen_.insert(w.part[0].data()).second) return;
    parameters += w.rows * w.cols;
    bytes += w.size_bytes();
  }
  void linear(const nn::Linear& linear) {
    matrix(linear.weight);
    floats(linear.bias);
  }
  void norm(const nn::Norm& norm) {
    floats(norm.weight);
    floats(norm.bias);
  }

 private:
  std::set<const std::byte*> seen_;
};

}  // namespace nibble
