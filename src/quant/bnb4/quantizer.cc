#include "quant/bnb4/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "quant/common/values.h"

namespace nibble::bnb4 {
namespace {

/// Half the widest gap of the tables (a sixth for FP4, 0.152 for NF4), and of the dynamic map of nested scales.
constexpr float kHalfGap = 0.1668F, kHalfNestedGap = 0.0072F;

std::int64_t blocks_of(const WeightSpec& spec, std::int64_t count) { return (count + spec.block - 1) / spec.block; }

QuantState state_of(const WeightSpec& spec, const Shape& weight, DType dtype, float offset) {
  QuantState state{.quant_type = spec.quant_type,
                   .block = spec.block,
                   .dtype = dtype,
                   .rows = weight.at(0),
                   .cols = weight.at(1),
                   .nested = std::nullopt};
  if (spec.double_quant) {
    state.nested = lut4::Nested{.offset = offset, .block = kNestedBlock, .dtype = DType::f32};
  }
  return state;
}

std::string message_name(const TensorEntry& weight) {
  return cat(weight.file.string(), ": tensor ", printable(weight.name));
}

/// Compares rows of one weight with what is stored for them.
class Comparison {
 public:
  /// `clips`: scales may lie below a block's largest magnitude.
  Comparison(const QTensor& stored, const View& weight, bool clips)
      : stored_(stored), weight_(weight), clips_(clips), scales_(stored), rows_(static_cast<std::size_t>(stored.rows)) {
    if (lut4::nested_of(stored)) nested_absmax_ = stored.part[3];
  }

  QuantizationError run(ThreadPool& pool) {
    pool.run(stored_.rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
      std::vector<float> x(static_cast<std::size_t>(stored_.cols)), y(x.size());
      for (std::int64_t row = begin; row < end; ++row) compare(row, x, y);
    });
    QuantizationError all;
    for (const QuantizationError& row : rows_) all.add(row);
    return all;
  }
  bool within() const { return within_.load(); }

 private:
  void compare(std::int64_t row, std::vector<float>& x, std::vector<float>& y) {
    const std::int64_t cols = stored_.cols;
    load_finite(weight_.dtype(), weight_.data() + row * cols * static_cast<std::int64_t>(size_of(weight_.dtype())),
                x.data(), cols);
    lut4::decode_row(stored_, row, y.data());
    QuantizationError& error = rows_[static_cast<std::size_t>(row)];
    for (std::int64_t at = 0; at < cols;) {
      const std::int64_t block = (row * cols + at) / stored_.group;
      const std::int64_t end = std::min(cols, (block + 1) * stored_.group - row * cols);
      compare_block(block, x.data() + at, y.data() + at, end - at, error);
      at = end;
    }
  }

  void compare_block(std::int64_t block, const float* x, const float* y, std::int64_t count, QuantizationError& error) {
    // A nested scale may be off by half a step of its own; every code is then off by as much, at most.
    const float scale = std::fabs(scales_(block)) + 1e-38F;
    const float nested = nested_absmax_.empty() ? 0 : kHalfNestedGap * nested_absmax_.at(block / kNestedBlock);
    const float bound = kHalfGap * (scale + nested) + nested * 1.01F + 1e-6F * scale;
    float largest = 0;
    bool within = true;
    double squares = 0, weights = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const float distance = std::fabs(x[i] - y[i]);
      largest = std::max(largest, distance);
      within = within && distance <= bound + (clips_ ? std::max(0.0F, std::fabs(x[i]) - scale) : 0);
      squares += static_cast<double>(distance) * static_cast<double>(distance);
      weights += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    }
    if (!within) within_.store(false);
    error.add({largest, squares, weights});
  }

  const QTensor& stored_;
  const View& weight_;
  const bool clips_;
  lut4::Scales scales_;
  View nested_absmax_;
  std::vector<QuantizationError> rows_;
  std::atomic<bool> within_{true};
};

}  // namespace

Quantizer::Quantizer(WeightSpec spec, bnb::Config config) : spec_(std::move(spec)), config_(std::move(config)) {
  check_spec(spec_);
  if (size_of(config_.quant_storage) != 1) {
    throw bad_input("quant_storage ", torch_name(config_.quant_storage), ": codes are written as uint8 or int8");
  }
  config_.load_in_4bit = true;
  config_.load_in_8bit = false;
  config_.quant_type = spec_.quant_type;
  config_.double_quant = spec_.double_quant;
}

std::string Quantizer::describe(const std::string&, const Shape&, DType) const {
  return cat(spec_.quant_type, ", blocksize ", spec_.block, spec_.double_quant ? ", double quantization" : "");
}

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType dtype) const {
  // The text of nested scales ends with their offset, which only the values tell: this one has as many digits as most.
  return plans(module, weight, state_of(spec_, weight, dtype, 0.05337163F));
}

std::vector<TensorPlan> Quantizer::exact_outputs(const std::string& module, const TensorEntry& weight,
                                                 ThreadPool& pool) const {
  const View& view = weight.view;
  const float offset = spec_.double_quant ? nested_offset(spec_, view, message_name(weight), pool) : 0;
  return plans(module, view.shape(), state_of(spec_, view.shape(), view.dtype(), offset));
}

std::vector<TensorPlan> Quantizer::plans(const std::string& module, const Shape& weight,
                                         const QuantState& state) const {
  const std::int64_t count = count_of(weight), blocks = blocks_of(spec_, count);
  const std::string name = module + ".weight";
  std::vector<TensorPlan> out{{name, config_.quant_storage, {(count + 1) / 2, 1}},
                              {name + ".absmax", spec_.double_quant ? DType::u8 : DType::f32, {blocks}}};
  if (spec_.double_quant) {
    out.push_back({name + ".nested_absmax", DType::f32, {(blocks + kNestedBlock - 1) / kNestedBlock}});
    out.push_back({name + ".nested_quant_map", DType::f32, {256}});
  }
  out.push_back({name + ".quant_map", DType::f32, {16}});
  out.push_back({cat(name, ".quant_state.bitsandbytes__", spec_.quant_type),
                 DType::u8,
                 {static_cast<std::int64_t>(state_text(state).size())}});
  return out;
}

std::int64_t Quantizer::working_bytes(const std::string&, const Shape& weight, DType, int threads) const {
  const std::int64_t count = count_of(weight), blocks = blocks_of(spec_, count);
  const std::int64_t nested = spec_.double_quant ? blocks * 5 + 65536 : 0;
  return count / 2 + blocks * 4 + nested + threads * spec_.block * 8 +
         weight.at(0) * static_cast<std::int64_t>(sizeof(QuantizationError)) + threads * weight.at(1) * 8;
}

std::string Quantizer::note(const std::string&, const Shape& weight, DType) const {
  if (spec_.block != 64) return "Transformers loads blocks of 64 only: these are readable by nibble and bitsandbytes";
  if (weight.at(1) % spec_.block != 0)
    return "inputs are not a multiple of the block: bitsandbytes' fast CPU kernels refuse them";
  return {};
}

void Quantizer::quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) {
  const View& view = weight.view;
  const StoredWeight stored = quantize_weight(spec_, view, message_name(weight), pool);
  const std::string name = module + ".weight";
  sink(name, stored.codes.view().bytes());
  sink(name + ".absmax", stored.absmax.view().bytes());
  if (stored.nested) {
    sink(name + ".nested_absmax", stored.nested->absmax.view().bytes());
    const std::array<float, 256> map = dynamic_map();
    sink(name + ".nested_quant_map", std::as_bytes(std::span(map)));
  }
  sink(name + ".quant_map", std::as_bytes(std::span(*table_of(spec_.quant_type))));
  const float offset = stored.nested ? stored.nested->offset : 0;
  const std::string text = state_text(state_of(spec_, view.shape(), view.dtype(), offset));
  sink(cat(name, ".quant_state.bitsandbytes__", spec_.quant_type), std::as_bytes(std::span(text)));
}

std::optional<Json> Quantizer::quantization_config(const SelectionResult& selected) const {
  return bnb::config_json(config_, selected);
}

void Quantizer::open_result(std::shared_ptr<const Checkpoint> written) {
  result_ = std::make_unique<Reader>(std::move(written));
}

QuantizationError Quantizer::verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const {
  check(result_ != nullptr, "bnb4: verify before open_result");
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
  const Shape& shape = weight.view.shape();
  const LinearWeights linear = result_->load(module, {shape.at(0), shape.at(1)}, exec);
  Comparison comparison(linear.weight, weight.view, spec_.search_absmax);
  const QuantizationError error = comparison.run(pool);
  if (!comparison.within()) {
    throw runtime_failure(printable(module), ": stored values are up to ", error.largest,
                          " from the weights, more than ", spec_.quant_type, " allows");
  }
  return error;
}

}  // namespace nibble::bnb4
