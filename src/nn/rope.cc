#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble::nn {
namespace {

/// theta^(-2i / dim), rounded where PyTorch rounds.
std::vector<float> inverse_frequencies(double theta, std::int64_t dim) {
  std::vector<float> out(static_cast<std::size_t>(dim / 2));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    out[i] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  return out;
}

void stretch_llama3(const RopeConfig& c, std::vector<float>& inv_freq) {
  const double original = static_cast<double>(c.original_positions);
  const double low_wavelength = original / c.low_freq_factor, high_wavelength = original / c.high_freq_factor;
  for (float& f : inv_freq) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      f = static_cast<float>(f / c.factor);
      continue;
    }
    const double smooth = (original / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
    f = static_cast<float>((1 - smooth) * f / c.factor + smooth * f);
  }
}

void stretch_yarn(const RopeConfig& c, std::int64_t dim, std::vector<float>& inv_freq) {
  // The dimension whose wave turns `rotations` times within the original context.
  const auto correction_dim = [&](double rotations) {
    const double turns = static_cast<double>(c.original_positions) / (rotations * 2 * std::numbers::pi);
    return static_cast<double>(dim) * std::log(turns) / (2 * std::log(c.theta));
  };
  double low = correction_dim(c.beta_fast), high = correction_dim(c.beta_slow);
  if (c.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] = static_cast<float>(inv_freq[i] / c.factor * ramp + inv_freq[i] * (1 - ramp));
  }
}

std::vector<float> frequencies(const RopeConfig& c, std::int64_t dim) {
  std::vector<float> out = inverse_frequencies(c.theta, dim);
  if (c.kind == RopeKind::linear) {
    for (float& f : out) f = static_cast<float>(f / c.factor);
  } else if (c.kind == RopeKind::llama3) {
    stretch_llama3(c, out);
  } else if (c.kind == RopeKind::yarn) {
    stretch_yarn(c, dim, out);
  }
  return out;
}

}  // namespace

Rope::Rope(const RopeConfig& config, std::int64_t head_dim)
    : config_(config),
      rotary_dim_(static_cast<std::int64_t>(static_cast<double>(head_dim) * config.partial) / 2 * 2),
      inv_freq_(frequencies(config, rotary_dim_)) {}

void Rope::table(std::int64_t first, std::int64_t rows, std::int64_t length, float* cos, float* sin) const {
  std::vector<float> grown;
  const std::vector<float>* inv_freq = &inv_freq_;
  if (config_.kind == RopeKind::dynamic && length > config_.max_positions) {
    const double dim = static_cast<double>(rotary_dim_);
    const double stretch = config_.factor * static_cast<double>(length) / static_cast<double>(config_.max_positions) -
                           (config_.factor - 1);
    grown = inverse_frequencies(config_.theta * std::pow(stretch, dim / (dim - 2)), rotary_dim_);
    inv_freq = &grown;
  }
  const float scale = config_.kind == RopeKind::yarn ? static_cast<float>(config_.attention_factor) : 1.0f;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (const float f : *inv_freq) {
      const double angle = static_cast<float>(first + row) * f;  // rounded to f32, as the product of two f32 tensors
      *cos++ = static_cast<float>(std::cos(angle)) * scale;
      *sin++ = static_cast<float>(std::sin(angle)) * scale;
    }
  }
}

}  // namespace nibble::nn
