// The reference device: every operator, scalar, accumulating in double. The oracle of all other devices.
#pragma once
#include "device/device.h"

namespace nibble::ref {

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t cols, float* y,
              Exec& exec);
void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::int64_t rows, std::int64_t cols,
                float* y, Exec& exec);
void rope(float* x, const RopeTable& table, std::int64_t rows, std::int64_t heads, std::int64_t head_dim, Exec& exec);
void attention(std::span<const AttentionSeq> seqs, const AttentionArgs& args, Exec& exec);
void gated(Activation act, const float* gate, const float* up, std::int64_t count, float* y, Exec& exec);
void activate(Activation act, const float* x, std::int64_t count, float* y, Exec& exec);
void add(const float* x, std::int64_t count, float* y, Exec& exec);

/// act(x) of one value, in double.
double activation(Activation act, double x);

const Ops& ops();

}  // namespace nibble::ref
