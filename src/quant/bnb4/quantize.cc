#include "quant/bnb4/quantize.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "quant/bnb4/bnb4.h"
#include "quant/common/cascade_sum.h"
#include "quant/common/values.h"

namespace nibble::bnb4 {
namespace {

constexpr float kSmallestAbsmax = 1e-38F;

/// Codes sorted by their value, and the borders between neighbours: a value's place is the number of borders below it.
struct Borders {
  std::array<float, 15> border;
  std::array<std::uint8_t, 16> code;
};

Borders borders_of(std::string_view quant_type) {
  Borders out{};
  const std::array<float, 16>& table = *table_of(quant_type);
  if (quant_type == "nf4") {
    for (std::size_t i = 0; i < 16; ++i) out.code[i] = static_cast<std::uint8_t>(i);
  } else {
    out.code = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};
  }
  for (std::size_t i = 0; i < 15; ++i) out.border[i] = (table[out.code[i]] + table[out.code[i + 1]]) / 2;
  return out;
}

/// The places of `count` scaled values; branch-free, so that compilers vectorise it.
void places_of(const Borders& borders, const float* x, std::int64_t count, std::int32_t* place) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::int32_t below = 0;
    for (std::size_t j = 0; j < 15; ++j) below += borders.border[j] < x[i] ? 1 : 0;
    place[i] = below;
  }
}

/// x scaled to [-1, 1] in place. A short last block is divided, full ones multiplied by the reciprocal.
void scale_to_one(float* x, std::int64_t count, float absmax, bool full) {
  const float divisor = std::max(absmax, kSmallestAbsmax), factor = 1 / divisor;
  const auto clamp = [](float v) { return v < -1 ? -1.0F : v > 1 ? 1.0F : v; };
  if (full) {
    for (std::int64_t i = 0; i < count; ++i) x[i] = clamp(x[i] * factor);
  } else {
    for (std::int64_t i = 0; i < count; ++i) x[i] = clamp(x[i] / divisor);
  }
}

/// The scale of a block that minimizes its squared error, starting from the largest magnitude: of a row of trial scales
/// the best, each followed by the scale that is best for the codes it gives.
class AbsmaxSearch {
 public:
  AbsmaxSearch(const Borders& borders, const std::array<float, 16>& table) : borders_(borders) {
    for (std::size_t i = 0; i < 16; ++i) value_[i] = table[borders.code[i]];
  }

  float run(const float* x, std::int64_t count, float largest, bool full) {
    if (!(largest > 0)) return largest;
    scaled_.resize(static_cast<std::size_t>(count));
    place_.resize(scaled_.size());
    float best = largest;
    double least = error(x, count, largest, full, nullptr);
    for (int step = -12; step <= 3; ++step) {
      float trial = largest * (1 + 0.025F * static_cast<float>(step));
      for (int again = 0; again < 2; ++again) {
        float fitted = 0;
        const double off = error(x, count, trial, full, &fitted);
        if (off < least) {
          least = off;
          best = trial;
        }
        if (!(fitted > 0) || !std::isfinite(fitted)) break;
        trial = fitted;
      }
    }
    return best;
  }

 private:
  /// Of the codes that this scale gives; `fitted` (may be null): the best scale for them.
  double error(const float* x, std::int64_t count, float absmax, bool full, float* fitted) {
    std::copy_n(x, count, scaled_.data());
    scale_to_one(scaled_.data(), count, absmax, full);
    places_of(borders_, scaled_.data(), count, place_.data());
    double squares = 0, product = 0, weight = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const float unit = value_[static_cast<std::size_t>(place_[static_cast<std::size_t>(i)])];
      const double off = static_cast<double>(x[i] - unit * absmax);
      squares += off * off;
      product += static_cast<double>(x[i]) * static_cast<double>(unit);
      weight += static_cast<double>(unit) * static_cast<double>(unit);
    }
    if (fitted != nullptr) *fitted = weight > 0 ? static_cast<float>(product / weight) : 0;
    return squares;
  }

  const Borders& borders_;
  std::array<float, 16> value_{};  ///< by place
  std::vector<float> scaled_;
  std::vector<std::int32_t> place_;
};

class Encoder {
 public:
  Encoder(const WeightSpec& spec, const View& weight)
      : spec_(spec), weight_(weight), borders_(borders_of(spec.quant_type)) {}

  /// Blocks [begin, end); false when a value is not finite. Without `codes` the maxima alone.
  bool run(std::int64_t begin, std::int64_t end, std::uint8_t* codes, float* absmax) const {
    std::vector<float> x(static_cast<std::size_t>(spec_.block) + 1);
    std::vector<std::int32_t> place(x.size());
    AbsmaxSearch search(borders_, *table_of(spec_.quant_type));
    const auto bytes = static_cast<std::int64_t>(size_of(weight_.dtype()));
    bool finite = true;
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * spec_.block, count = std::min(spec_.block, weight_.count() - first);
      const bool full = count == spec_.block;
      finite = load_finite(weight_.dtype(), weight_.data() + first * bytes, x.data(), count) && finite;
      float largest = largest_magnitude(x.data(), count);
      if (spec_.search_absmax && finite) largest = search.run(x.data(), count, largest, full);
      absmax[block] = full ? largest : std::max(largest, kSmallestAbsmax);
      if (codes == nullptr) continue;
      scale_to_one(x.data(), count, largest, full);
      const std::int64_t even = count + count % 2;
      if (even != count) x[static_cast<std::size_t>(count)] = 0;  // the byte's second half
      places_of(borders_, x.data(), even, place.data());
      std::uint8_t* to = codes + first / 2;
      for (std::int64_t i = 0; i < even; i += 2) {
        const auto at = static_cast<std::size_t>(i);
        to[i / 2] = static_cast<std::uint8_t>(code(place[at]) << 4 | code(place[at + 1]));
      }
    }
    return finite;
  }

 private:
  unsigned code(std::int32_t place) const { return borders_.code[static_cast<std::size_t>(place)]; }
  const WeightSpec& spec_;
  const View& weight_;
  Borders borders_;
};

/// torch.linspace(0.1, 1, count) in f32: the first half counted from the start, the second from the end.
std::vector<float> linspace(std::int64_t count) {
  const float first = 0.1F, last = 1, step = (last - first) / static_cast<float>(count - 1);
  std::vector<float> out;
  for (std::int64_t i = 0; i < count; ++i) {
    out.push_back(i < count / 2 ? std::fma(step, static_cast<float>(i), first)
                                : std::fma(-step, static_cast<float>(count - 1 - i), last));
  }
  return out;
}

/// For each of 65536 bins of [-1, 1] the first code whose border to the next is not below it.
std::vector<std::uint8_t> code_of_bins(const std::array<float, 256>& map) {
  std::vector<std::uint8_t> out(65536);
  std::size_t code = 0;
  for (std::size_t bin = 0; bin < out.size(); ++bin) {
    const float value = -1.0F + 2.0F * static_cast<float>(bin) / 65535.0F;
    while (code < 255 && 0.5F * (map[code] + map[code + 1]) < value) ++code;
    out[bin] = static_cast<std::uint8_t>(code);
  }
  return out;
}

float mean_of(std::span<const float> values) {
  CascadeSum sum(static_cast<std::int64_t>(values.size()));
  sum.add(values.data(), static_cast<std::int64_t>(values.size()));
  return sum.result() / static_cast<float>(values.size());
}

void nest(StoredWeight& weight) {
  const std::span<float> absmax = weight.absmax.as<float>();
  NestedParts nested;
  nested.offset = mean_of(absmax);
  std::vector<float> rest(absmax.size());
  for (std::size_t i = 0; i < rest.size(); ++i) rest[i] = absmax[i] - nested.offset;
  Blockwise8 quantized = quantize_blockwise8(rest, kNestedBlock, dynamic_map());
  weight.absmax = std::move(quantized.codes);
  nested.absmax = std::move(quantized.absmax);
  weight.nested = std::move(nested);
}

/// Codes (unless null) and maxima of all blocks.
void encode(const WeightSpec& spec, const View& weight, const std::string& name, std::uint8_t* codes, Tensor& absmax,
            ThreadPool& pool) {
  const Encoder encoder(spec, weight);
  float* const largest = absmax.as<float>().data();
  std::atomic<bool> finite{true};
  pool.run(absmax.count(), 16, [&](std::int64_t begin, std::int64_t end, int) {
    if (!encoder.run(begin, end, codes, largest)) finite.store(false);
  });
  if (!finite.load()) throw bad_input(name, ": NaN or infinity among its values cannot be quantized");
}

std::int64_t blocks_of(const WeightSpec& spec, const View& weight) {
  return (weight.count() + spec.block - 1) / spec.block;
}

}  // namespace

void check_spec(const WeightSpec& spec) {
  if (table_of(spec.quant_type) == nullptr) {
    throw bad_input("quant_type ", printable(spec.quant_type), " (nf4 and fp4 exist)");
  }
  const bool power = spec.block >= 32 && spec.block <= 4096 && (spec.block & (spec.block - 1)) == 0;
  if (!power) throw bad_input("blocksize ", spec.block, " (powers of two from 32 to 4096 exist)");
}

StoredWeight quantize_weight(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool) {
  check_spec(spec);
  StoredWeight out;
  out.codes = Tensor({(weight.count() + 1) / 2, 1}, DType::u8);
  out.absmax = Tensor({blocks_of(spec, weight)}, DType::f32);
  encode(spec, weight, name, reinterpret_cast<std::uint8_t*>(out.codes.data()), out.absmax, pool);
  if (spec.double_quant) nest(out);
  return out;
}

float nested_offset(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool) {
  check_spec(spec);
  Tensor absmax({blocks_of(spec, weight)}, DType::f32);
  encode(spec, weight, name, nullptr, absmax, pool);
  return mean_of(absmax.as<float>());
}

std::array<float, 256> dynamic_map() {
  std::array<float, 256> out{};
  std::size_t at = 0;
  for (std::int64_t i = 0; i < 7; ++i) {
    const std::vector<float> points = linspace((std::int64_t{1} << i) + 1);
    const auto scale = static_cast<float>(std::pow(10.0, static_cast<double>(i - 6)));
    for (std::size_t j = 0; j + 1 < points.size(); ++j) {
      const float value = (points[j] + points[j + 1]) / 2 * scale;
      out[at++] = value;
      out[at++] = -value;
    }
  }
  out[at++] = 0;
  out[at++] = 1;
  std::sort(out.begin(), out.end());
  return out;
}

Blockwise8 quantize_blockwise8(std::span<const float> values, std::int64_t block, const std::array<float, 256>& map) {
  const auto count = static_cast<std::int64_t>(values.size());
  Blockwise8 out{Tensor({count}, DType::u8), Tensor({(count + block - 1) / block}, DType::f32)};
  const std::vector<std::uint8_t> bins = code_of_bins(map);
  auto* codes = reinterpret_cast<std::uint8_t*>(out.codes.data());
  for (std::int64_t first = 0; first < count; first += block) {
    const std::int64_t size = std::min(block, count - first);
    const float largest = largest_magnitude(values.data() + first, size);
    out.absmax.as<float>()[static_cast<std::size_t>(first / block)] = largest;
    if (!(largest > 0)) continue;  // codes stay 0, whose value times 0 is 0
    const float factor = 1 / largest;
    for (std::int64_t i = first; i < first + size; ++i) {
      const float v = std::clamp(values[static_cast<std::size_t>(i)] * factor, -1.0F, 1.0F);
      const float bin = (v + 1) * 0.5F * 65535.0F + 0.5F;
      codes[i] = bins[static_cast<std::size_t>(std::min(static_cast<std::int32_t>(bin), 65535))];
    }
  }
  return out;
}

}  // namespace nibble::bnb4
