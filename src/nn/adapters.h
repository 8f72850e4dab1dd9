// Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685; DoRA, Liu et al. 2024, arXiv:2402.09353) over the linears
// and embeddings of a model while it runs. Several adapters of one module are one value: their
// ranks are stacked, so that they cost two thin products however many they are.
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layout/layout.h"
#include "nn/linear.h"

namespace nibble::nn {

/// y = gain * (W x) + base bias + b^T (a x) + bias. Scales of the adapters are folded into b and bias.
struct LinearAdapter {
  QTensor a;                ///< [rank, inputs], dense f32
  std::vector<float> b;     ///< [rank, outputs]
  std::vector<float> gain;  ///< [outputs], or empty (ones): DoRA's magnitude / |W + dW|
  std::vector<float> bias;  ///< [outputs], or empty (zeros)

  std::int64_t rank() const { return a.rows; }
  /// Rows [row0, row0 + rows) of the weight, w [rows, inputs], become those of gain * W + b^T a.
  void merge(std::int64_t row0, std::int64_t rows, float* w) const;
};

/// Row `id` of the table + sum over j of a[id, j] * b[j].
struct EmbeddingAdapter {
  std::int64_t rank = 0, width = 0;
  std::vector<float> a;  ///< [table rows, rank]
  std::vector<float> b;  ///< [rank, width]

  void add(std::int64_t id, float* row) const;
};

/// By module name as the model has it ("model.layers.0.self_attn.q_proj").
struct Adapters {
  std::map<std::string, LinearAdapter, std::less<>> linears;
  std::map<std::string, EmbeddingAdapter, std::less<>> embeddings;

  /// nullptr when the module has none.
  const LinearAdapter* linear(std::string_view module) const;
  const EmbeddingAdapter* embedding(std::string_view module) const;
};

/// Adds to the outputs of linears of one input what their adapters (if any) give. The products are f32 whatever
/// exec.compute is, as in PEFT.
void add_adapters(std::span<const LinearJob> jobs, const float* x, std::int64_t m, Exec& exec);

}  // namespace nibble::nn
