#include "nn/activation_quant.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "layout/rows8/rows8.h"

namespace nibble::nn {
namespace {

float largest_finite(DType qtype) {
  if (qtype == DType::f8_e5m2) return 57344;
  return qtype == DType::f8_e4m3fnuz ? 240 : 448;
}

bool is_int8_rows(const QTensor& w) { return w.layout == &rows8::kLayout && w.part[0].dtype() == DType::i8; }

/// The scales of this call: those of the checkpoint unless a calibration has others.
StaticScales scales_now(const Linear& linear, const Exec& exec) {
  StaticScales scales{linear.activation->input_scale, linear.activation->output_scale,
                      linear.activation->quantize_output};
  if (exec.tap != nullptr) exec.tap->static_scales(linear.name, scales);
  return scales;
}

/// int8 codes times int8 codes, summed in int32: no rounding before the one multiplication by both scales.
void int8_product(const Linear& linear, const std::int8_t* codes, float input_scale, std::int64_t m, float* y,
                  Exec& exec) {
  const QTensor& w = linear.weight;
  const auto* weight = reinterpret_cast<const std::int8_t*>(w.part[0].data());
  const std::int64_t n = w.rows, k = w.cols;
  exec.pool.run(n, 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      const float scale = round_to(w.dtype, input_scale * w.part[1].at(row));
      const float bias = linear.bias.empty() ? 0 : linear.bias[static_cast<std::size_t>(row)];
      const std::int8_t* wr = weight + row * k;
      for (std::int64_t i = 0; i < m; ++i) {
        const std::int8_t* xr = codes + i * k;
        std::int32_t sum = 0;
        for (std::int64_t j = 0; j < k; ++j) sum += static_cast<std::int32_t>(xr[j]) * wr[j];
        const float product = round_to(w.dtype, static_cast<float>(sum) * scale);
        y[i * n + row] = linear.bias.empty() ? product : round_to(w.dtype, product + bias);
      }
    }
  });
}

}  // namespace

float quantize_code(DType qtype, DType dtype, float x, float scale) {
  const float ratio = round_to(dtype, round_to(dtype, x) / scale);
  if (qtype == DType::i8) return std::isnan(ratio) ? 0.0f : std::clamp(std::nearbyint(ratio), -128.0f, 127.0f);
  const float limit = largest_finite(qtype);
  return round_to(qtype, std::clamp(ratio, -limit, limit));
}

void forward_quantized(const Linear& linear, const float* x, std::int64_t m, float* y, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const ActivationQuant& a = *linear.activation;
  const DType dtype = linear.weight.dtype;
  const std::int64_t in = m * linear.inputs(), out = m * linear.outputs();
  const float input_scale = scales_now(linear, exec).input;
  if (a.qtype == DType::i8 && is_int8_rows(linear.weight)) {
    std::int8_t* codes = exec.arena.take<std::int8_t>(in).data();
    for (std::int64_t i = 0; i < in; ++i)
      codes[i] = static_cast<std::int8_t>(quantize_code(a.qtype, dtype, x[i], input_scale));
    int8_product(linear, codes, input_scale, m, y, exec);
  } else {
    float* rounded = exec.arena.take<float>(in).data();
    for (std::int64_t i = 0; i < in; ++i) {
      rounded[i] = round_to(dtype, input_scale * quantize_code(a.qtype, dtype, x[i], input_scale));
    }
    MatArgs args;
    args.x = rounded;
    args.m = m;
    args.ldx = linear.inputs();
    args.y = y;
    args.ldy = linear.outputs();
    args.bias = linear.bias.empty() ? nullptr : linear.bias.data();
    matmul(linear.weight, args, exec);
  }
  if (exec.tap != nullptr) exec.tap->linear_output(linear.name, y, m, linear.outputs());
  const StaticScales scales = scales_now(linear, exec);
  if (!scales.quantize_output) return;
  for (std::int64_t i = 0; i < out; ++i) {
    y[i] = round_to(dtype, scales.output * quantize_code(a.qtype, dtype, y[i], scales.output));
  }
}

}  // namespace nibble::nn
