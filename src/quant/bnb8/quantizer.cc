#include "quant/bnb8/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "quant/common/module_tensors.h"
#include "quant/common/rounding.h"
#include "quant/common/values.h"

namespace nibble::bnb8 {
namespace {

constexpr float kLargestF16 = 65504;

std::string message_name(const TensorEntry& weight) {
  return cat(weight.file.string(), ": tensor ", printable(weight.name));
}

struct RowFault {
  bool finite = true, fits_f16 = true;
};

/// One row of f32 values, which are rounded to f16 on the way.
RowFault encode_row(float* x, std::int64_t cols, float& absmax, std::int8_t* codes) {
  for (std::int64_t i = 0; i < cols; ++i) x[i] = rounding::F16::round(x[i]);
  absmax = largest_magnitude(x, cols);
  if (!(absmax <= kLargestF16)) return {true, false};
  if (absmax == 0) {
    std::fill_n(codes, cols, std::int8_t{0});
    return {};
  }
  // Two roundings: the library computes 127 / absmax as the reciprocal times 127.
  const float factor = (1 / absmax) * 127;
  for (std::int64_t i = 0; i < cols; ++i) {
    codes[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(rounding::nearest_integer(x[i] * factor)));
  }
  return {};
}

/// What LLM.int8 allows a value w of a row to be off: half a code, and f16's rounding.
float bound_of(float absmax, float w) { return absmax * (0.501F / 127) + std::fabs(w) * 0x1p-10F + 0x1p-24F; }

}  // namespace

StoredWeight quantize_weight(const View& weight, const std::string& name, ThreadPool& pool) {
  const std::int64_t rows = weight.dim(0), cols = weight.dim(1);
  const auto bytes = static_cast<std::int64_t>(size_of(weight.dtype()));
  StoredWeight out{Tensor({rows, cols}, DType::i8), Tensor({rows}, DType::f32)};
  auto* codes = reinterpret_cast<std::int8_t*>(out.codes.data());
  float* absmax = out.absmax.as<float>().data();
  std::atomic<bool> finite{true}, fits{true};
  pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> x(static_cast<std::size_t>(cols));
    for (std::int64_t row = begin; row < end; ++row) {
      if (!load_finite(weight.dtype(), weight.data() + row * cols * bytes, x.data(), cols)) finite.store(false);
      if (!encode_row(x.data(), cols, absmax[row], codes + row * cols).fits_f16) fits.store(false);
    }
  });
  if (!finite.load()) throw bad_input(name, ": NaN or infinity among its values cannot be quantized");
  if (!fits.load())
    throw bad_input(name, ": values beyond 65504, the largest float16, cannot be quantized by LLM.int8");
  return out;
}

Quantizer::Quantizer(bnb::Config config) : config_(std::move(config)) {
  config_.load_in_4bit = false;
  config_.load_in_8bit = true;
}

std::string Quantizer::describe(const std::string&, const Shape&, DType) const { return "LLM.int8, per row"; }

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType) const {
  return {{module + ".weight", DType::i8, weight},
          {module + ".SCB", DType::f32, {weight.at(0)}},
          {module + ".weight_format", DType::u8, {}}};
}

std::int64_t Quantizer::working_bytes(const std::string&, const Shape& weight, DType, int threads) const {
  return count_of(weight) + weight.at(0) * (4 + static_cast<std::int64_t>(sizeof(QuantizationError))) +
         threads * weight.at(1) * 4;
}

std::string Quantizer::note(const std::string&, const Shape&, DType) const { return {}; }

void Quantizer::quantize(const std::string& module, const TensorEntry& weight, ThreadPool& pool, const Sink& sink) {
  const StoredWeight stored = quantize_weight(weight.view, message_name(weight), pool);
  sink(module + ".weight", stored.codes.view().bytes());
  sink(module + ".SCB", stored.absmax.view().bytes());
  const std::byte row_by_row{0};
  sink(module + ".weight_format", {&row_by_row, 1});
}

std::optional<Json> Quantizer::quantization_config(const SelectionResult& selected) const {
  return bnb::config_json(config_, selected);
}

void Quantizer::open_result(std::shared_ptr<const Checkpoint> written) {
  const Reader reader(written);  // checks every tensor of the format
  result_ = std::move(written);
}

QuantizationError Quantizer::verify(const std::string& module, const TensorEntry& weight, ThreadPool& pool) const {
  check(result_ != nullptr, "bnb8: verify before open_result");
  const std::int64_t rows = weight.view.dim(0), cols = weight.view.dim(1);
  const View& codes = quant::need_tensor(*result_, module + ".weight", DType::i8, rows * cols).view;
  const View& absmax = quant::need_tensor(*result_, module + ".SCB", DType::f32, rows).view;
  std::vector<QuantizationError> errors(static_cast<std::size_t>(rows));
  std::atomic<bool> within{true};
  pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> x(static_cast<std::size_t>(cols));
    for (std::int64_t row = begin; row < end; ++row) {
      load_finite(weight.view.dtype(), weight.view.rows(row, row + 1).data(), x.data(), cols);
      const auto* code = reinterpret_cast<const std::int8_t*>(codes.data()) + row * cols;
      const float scale = absmax.at(row);
      QuantizationError& error = errors[static_cast<std::size_t>(row)];
      for (std::int64_t i = 0; i < cols; ++i) {
        const float w = x[static_cast<std::size_t>(i)];
        const float distance = std::fabs(w - static_cast<float>(code[i]) * scale * (1.0F / 127));
        if (!(distance <= bound_of(scale, w))) within.store(false, std::memory_order_relaxed);
        error.add({distance, static_cast<double>(distance) * static_cast<double>(distance),
                   static_cast<double>(w) * static_cast<double>(w)});
      }
    }
  });
  QuantizationError all;
  for (const QuantizationError& row : errors) all.add(row);
  if (!within.load()) {
    throw runtime_failure(printable(module), ": stored values are up to ", all.largest,
                          " from the weights, more than LLM.int8 allows");
  }
  return all;
}

}  // namespace nibble::bnb8
