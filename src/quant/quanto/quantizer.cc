#include "quant/quanto/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "quant/common/rounding.h"
#include "quant/common/symmetric.h"
#include "quant/common/values.h"
#include "quant/quanto/packed.h"

namespace nibble::quanto {
namespace {

/// Spacing of a float dtype relative to the value, at most.
float epsilon(DType dtype) { return dtype == DType::bf16 ? 0x1p-7F : dtype == DType::f16 ? 0x1p-10F : 0x1p-23F; }

/// Smallest positive value of a float dtype.
float smallest(DType dtype) { return dtype == DType::f16 ? 0x1p-24F : dtype == DType::bf16 ? 0x1p-133F : 0x1p-149F; }

/// How far a stored value may be from its weight w, for one scale and shift: half a code, plus what the roundings of
/// the weight's dtype can add at every step (see README.md).
struct Bound {
  float fixed = 0;     ///< whatever w is
  float relative = 0;  ///< times |w|
};

Bound bound_of(const WeightSpec& spec, DType dtype, float scale, float shift) {
  const float eps = epsilon(dtype);
  switch (spec.qtype) {
    case QType::qint8: return {scale * (0.5F + 128 * eps) + 128 * smallest(dtype), eps};
    case QType::qfloat8_e4m3fn: return {scale * 0x1p-9F + 448 * smallest(dtype), 0x1p-4F + 2 * eps};
    case QType::qfloat8_e5m2: return {scale * 0x1p-16F + 57344 * smallest(dtype), 0x1p-3F + 2 * eps};
    case QType::qfloat8_e4m3fnuz: return {scale * 0x1p-10F + 240 * smallest(dtype), 0x1p-4F + 2 * eps};
    default: break;
  }
  const auto last = static_cast<float>((1 << bits_of(spec.qtype)) - 1);
  // A refined shift may clip, and a zero point clips all ranges that zero is not part of.
  const bool clips = spec.optimizer == Optimizer::hqq || spec.zero_point;
  const float codes = clips ? last : 0.5F;
  return {scale * (codes + 4 * last * eps) + 4 * eps * std::fabs(shift) + 4 * last * smallest(dtype),
          spec.zero_point ? 1 : 4 * eps};
}

/// Compares the rows of one weight with what is stored for them.
class Comparison {
 public:
  Comparison(const WeightSpec& spec, const ModuleParts& parts, const View& weight)
      : spec_(spec), parts_(parts), weight_(weight) {
    const Extent& extent = parts.extent;
    width_ = extent.grouped ? extent.group : extent.cols;
    units_ = width_ == 0 ? 0 : extent.rows * (extent.cols / width_);
    rows_.resize(static_cast<std::size_t>(extent.rows));
  }

  QuantizationError run(ThreadPool& pool) {
    std::vector<Buffers> buffers(static_cast<std::size_t>(pool.size()), Buffers(parts_.extent.cols));
    pool.run(parts_.extent.rows, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
      for (std::int64_t row = begin; row < end; ++row) compare_row(row, buffers[static_cast<std::size_t>(worker)]);
    });
    QuantizationError all;
    for (const QuantizationError& row : rows_) all.add(row);
    return all;
  }

  bool within() const { return within_.load(); }

 private:
  struct Buffers {
    explicit Buffers(std::int64_t cols) : x(static_cast<std::size_t>(cols)), y(x.size()), codes(x.size()) {}
    std::vector<float> x, y;
    std::vector<std::uint8_t> codes;
  };

  void compare_row(std::int64_t row, Buffers& buffers) {
    auto& [x, y, codes] = buffers;
    const Extent& extent = parts_.extent;
    const auto bytes = static_cast<std::int64_t>(size_of(weight_.dtype()));
    load_finite(weight_.dtype(), weight_.data() + row * extent.cols * bytes, x.data(), extent.cols);
    const std::byte* stored = parts_.data.data() + row * extent.cols;
    if (is_packed(spec_.qtype)) {
      for (std::int64_t at = 0; at < extent.cols; at += width_) {
        unpack_row(reinterpret_cast<const std::uint8_t*>(parts_.data.data()), units_, width_, bits_of(spec_.qtype),
                   (row * extent.cols + at) / width_, codes.data() + at);
      }
      stored = reinterpret_cast<const std::byte*>(codes.data());
    }
    const std::int64_t per_row = extent.cols / extent.group;
    const bool one_scale = parts_.scale.count() == 1;
    dequantize_row(spec_, extent, parts_.scale, parts_.shift, {stored, one_scale ? 0 : row * per_row}, y.data());
    QuantizationError& error = rows_[static_cast<std::size_t>(row)];
    for (std::int64_t at = 0; at < extent.cols; at += extent.group) {
      const std::int64_t group = one_scale ? 0 : row * per_row + at / extent.group;
      compare_group(group, x.data() + at, y.data() + at, error);
    }
  }

  void compare_group(std::int64_t group, const float* x, const float* y, QuantizationError& error) {
    const float shift = parts_.shift.empty() ? 0 : parts_.shift.at(group);
    const Bound bound = bound_of(spec_, weight_.dtype(), parts_.scale.at(group), shift);
    float largest = 0;
    double squares = 0, weights = 0;
    std::int32_t outside = 0;
    for (std::int64_t i = 0; i < parts_.extent.group; ++i) {
      const float distance = std::fabs(x[i] - y[i]);
      outside += distance <= bound.fixed + bound.relative * std::fabs(x[i]) ? 0 : 1;
      largest = distance > largest ? distance : largest;
      squares += static_cast<double>(distance) * static_cast<double>(distance);
      weights += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    if (outside > 0) within_.store(false);
    error.add({largest, squares, weights});
  }

  const WeightSpec& spec_;
  const ModuleParts& parts_;
  const View& weight_;
  std::int64_t width_ = 0, units_ = 0;
  std::vector<QuantizationError> rows_;
  std::atomic<bool> within_{true};
};

}  // namespace

const WeightSpec& Config::spec_of(std::string_view module) const {
  for (const WeightRule& rule : rules) {
    if (rule.pattern.matches_start(module)) return rule.weights;
  }
  return weights;
}

std::vector<WeightRule> weight_rules(const ModuleRecipe& recipe, const WeightSpec& base) {
  std::vector<WeightRule> rules;
  for (const RecipeRule& rule : recipe.rules) {
    if (!rule.quantized) continue;  // the choice of modules has seen to those
    WeightSpec spec = base;
    for (const auto& [key, value] : rule.settings.object(rule.where)) {
      if (key != "weights") throw bad_input(rule.where, ": no setting \"", printable(key), "\" (weights)");
      const std::string& name = value.string(rule.where + ": weights");
      const std::optional<QType> qtype = qtype_from_name(name);
      if (!qtype) {
        throw bad_input(rule.where, ": weights: unknown type ", printable(name), " (int8, int4, int2, float8)");
      }
      spec.qtype = *qtype;
    }
    if (is_packed(spec.qtype) != is_packed(base.qtype)) {  // no optimizer and no zero point is for both
      spec.optimizer = Optimizer::automatic;
      spec.zero_point = spec.zero_point && is_packed(spec.qtype);
    }
    rules.push_back({rule.pattern, spec});
  }
  return rules;
}

Quantizer::Quantizer(Config config, std::map<std::string, ActivationScales> scales)
    : config_(std::move(config)), scales_(std::move(scales)) {
  check_spec(config_.weights);
  for (const WeightRule& rule : config_.rules) check_spec(rule.weights);
  if (config_.activations && is_packed(*config_.activations)) {
    throw bad_input("activations ", name_of(*config_.activations), ": int8 and float8 types are supported");
  }
}

std::string Quantizer::describe(const std::string& module, const Shape& weight, DType) const {
  const WeightSpec& spec = config_.spec_of(module);
  const Extent extent = extent_of(spec, weight);
  std::string out(name_of(spec.qtype));
  out += extent.grouped ? cat(", group_size ", extent.group) : ", per row";
  if (spec.zero_point) out += ", zero point";
  return out;
}

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType dtype) const {
  std::vector<TensorPlan> parts = stored_parts(module, config_.spec_of(module), weight, dtype);
  parts.push_back({module + ".input_scale", dtype, {}});
  parts.push_back({module + ".output_scale", dtype, {}});
  return parts;
}

std::int64_t Quantizer::working_bytes(const std::string& module, const Shape& weight, DType dtype, int threads) const {
  const WeightSpec& spec = config_.spec_of(module);
  const Extent extent = extent_of(spec, weight);
  std::int64_t bytes = 0;
  for (const TensorPlan& part : stored_parts("", spec, weight, dtype)) {
    bytes += count_of(part.shape, size_of(part.dtype)) * static_cast<std::int64_t>(size_of(part.dtype));
  }
  bytes += threads * 13 * extent.cols + extent.rows * static_cast<std::int64_t>(sizeof(QuantizationError));
  if (spec.optimizer == Optimizer::hqq) bytes += extent.groups() * 16 + (std::int64_t{1} << 20);
  return bytes;
}

std::string Quantizer::note(const std::string& module, const Shape& weight, DType dtype) const {
  const WeightSpec& spec = config_.spec_of(module);
  const Extent extent = extent_of(spec, weight);
  if (spec.group_size != 128 && extent.cols > spec.group_size &&
      group_size_for(extent.cols) != (extent.grouped ? extent.group : 0)) {
    return "optimum-quanto chooses group sizes itself when it loads: these are readable by nibble only";
  }
  if (is_packed(spec.qtype) && !extent.grouped && extent.cols > 128) {
    return "inputs are not a multiple of 32: one scale per row instead of groups";
  }
  if (spec.qtype == QType::qint4 && dtype == DType::bf16 && extent.grouped && extent.group == 128 &&
      weight.size() == 2 && extent.rows % 16 != 0) {
    return "outputs are not a multiple of 16: optimum-quanto cannot load such bf16 int4 weights on a CPU, nibble can";
  }
  return {};
}

void Quantizer::quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) {
  const WeightSpec& spec = config_.spec_of(module);
  const StoredWeight stored =
      quantize_weight(spec, weight.view, cat(weight.file.string(), ": tensor ", printable(weight.name)), pool);
  const std::vector<TensorPlan> parts = stored_parts(module, spec, weight.view.shape(), weight.view.dtype());
  const View* views[] = {&stored.data.view(), &stored.scale.view(), &stored.shift.view()};
  for (std::size_t i = 0; i < parts.size(); ++i) sink(parts[i].name, views[i]->bytes());
  const auto found = scales_.find(module);
  const ActivationScales scales = found == scales_.end() ? ActivationScales{} : found->second;
  const auto sink_scalar = [&](const char* name, float value) {
    Tensor scalar({}, weight.view.dtype());
    store_from_f32(scalar.dtype(), scalar.data(), 0, value);
    sink(module + name, scalar.view().bytes());
  };
  sink_scalar(".input_scale", scales.input);
  sink_scalar(".output_scale", scales.output);
}

std::vector<std::pair<std::string, std::string>> Quantizer::side_files(std::span<const std::string> modules) const {
  std::vector<std::pair<std::string, MapEntry>> map;
  for (const std::string& module : modules)
    map.emplace_back(module, MapEntry{config_.spec_of(module).qtype, config_.activations});
  return {{std::string(kMapFile), map_json(map).dump(4, true)}};
}

void Quantizer::open_result(std::shared_ptr<const Checkpoint> written) {
  result_ = std::make_unique<Reader>(std::move(written));
}

QuantizationError Quantizer::verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const {
  const WeightSpec& spec = config_.spec_of(module);
  check(result_ != nullptr, "quanto: verify before open_result");
  const Extent extent = extent_of(spec, weight.view.shape());
  const ModuleParts parts = result_->parts(module, {extent.rows, extent.cols});
  Comparison comparison(spec, parts, weight.view);
  const QuantizationError error = comparison.run(pool);
  if (!comparison.within()) {
    throw runtime_failure(printable(module), ": stored values are up to ", error.largest,
                          " from the weights, more than ", name_of(spec.qtype), " allows");
  }
  return error;
}

}  // namespace nibble::quanto
