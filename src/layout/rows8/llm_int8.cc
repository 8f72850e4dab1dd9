#include "layout/rows8/llm_int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "layout/cpu_matmul.h"
#include "layout/rows8/rows8.h"

namespace nibble::rows8 {
namespace {

/// 1 / 127^2 as the library has it (0.0018 % too large).
constexpr float kInverseSquare = 6.200124e-05F;

/// The input of one product, quantized.
struct Activations {
  std::span<const float> x;            ///< [m, cols] rounded to the compute dtype
  std::span<std::int8_t> codes;        ///< [m, cols]
  std::span<float> scale;              ///< [m]
  std::span<std::uint8_t> is_outlier;  ///< [cols], over all tokens
  std::span<std::int32_t> columns;     ///< the outlier columns
};

float to_half(float value) { return f16_to_f32(f32_to_f16(value)); }

float quantize_ref(const float* x, std::int64_t count, float threshold, std::int8_t* codes) {
  const bool split = threshold > 0;
  float largest = 0;
  for (std::int64_t k = 0; k < count; ++k) {
    const float h = std::abs(to_half(x[k]));
    if (split && h >= threshold) continue;
    if (!(h <= largest)) largest = h;  // also takes a NaN, and then keeps it
    if (std::isnan(largest)) break;
  }
  const float inverse = 1.0F / largest * 127.0F;
  for (std::int64_t k = 0; k < count; ++k) {
    const float h = to_half(x[k]);
    const float code = std::nearbyint(h * inverse);
    const bool zero = (split && std::abs(h) >= threshold) || !std::isfinite(code);
    codes[k] = zero ? std::int8_t{0} : static_cast<std::int8_t>(std::clamp(code, -128.0F, 127.0F));
  }
  return largest;
}

void mark_outliers_ref(const float* x, std::int64_t count, float threshold, std::uint8_t* out) {
  for (std::int64_t k = 0; k < count; ++k) {
    if (std::abs(to_half(x[k])) >= threshold) out[k] = 1;
  }
}

void int8_dots_ref(const std::int8_t* weights, std::int64_t rows, const std::int8_t* codes, std::int64_t count,
                   std::int64_t* sums) {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t sum = 0;
    for (std::int64_t k = 0; k < count; ++k) sum += std::int32_t{weights[r * count + k]} * codes[k];
    sums[r] = sum;
  }
}

/// Marks and lists the outlier columns; their codes become 0 when there are several tokens.
std::span<const std::int32_t> find_outliers(std::int64_t m, std::int64_t cols, float threshold, const Activations& a,
                                            const LlmInt8Steps& steps, Exec& exec) {
  exec.pool.run(cols, 64, [&](std::int64_t begin, std::int64_t end, int) {
    std::fill(a.is_outlier.begin() + begin, a.is_outlier.begin() + end, std::uint8_t{0});
    for (std::int64_t t = 0; t < m; ++t) {
      steps.mark_outliers(a.x.data() + t * cols + begin, end - begin, threshold, a.is_outlier.data() + begin);
    }
    for (std::int64_t t = 0; m > 1 && t < m; ++t) {
      for (std::int64_t k = begin; k < end; ++k) {
        if (a.is_outlier[static_cast<std::size_t>(k)] != 0) a.codes[static_cast<std::size_t>(t * cols + k)] = 0;
      }
    }
  });
  std::size_t count = 0;
  for (std::size_t k = 0; k < static_cast<std::size_t>(cols); ++k) {
    if (a.is_outlier[k] != 0) a.columns[count++] = static_cast<std::int32_t>(k);
  }
  return a.columns.first(count);
}

/// y += x . W over the outlier columns.
float add_outliers(DType compute, float y, const float* x, std::span<const std::int32_t> columns, const float* values) {
  double sum = 0;
  for (std::size_t i = 0; i < columns.size(); ++i) sum += static_cast<double>(x[columns[i]]) * values[i];
  return round_to(compute, y + static_cast<float>(sum));
}

struct RowRange {
  std::int64_t begin, end;
  std::int64_t* sums;  ///< [kRows]
  float* values;       ///< [columns]
};

constexpr std::int64_t kRows = 8;

void multiply_rows(const QTensor& w, const MatArgs& args, const Activations& a, std::span<const std::int32_t> columns,
                   DType compute, const LlmInt8Steps& steps, const RowRange& range) {
  const auto* q = reinterpret_cast<const std::int8_t*>(w.part[0].data());
  for (std::int64_t row = range.begin; row < range.end; row += kRows) {
    const std::int64_t rows = std::min(kRows, range.end - row);
    for (std::int64_t t = 0; t < args.m; ++t) {
      steps.dots(q + row * w.cols, rows, a.codes.data() + t * w.cols, w.cols, range.sums);
      for (std::int64_t r = 0; r < rows; ++r) {
        const float scales = a.scale[static_cast<std::size_t>(t)] * w.part[1].at(row + r);
        float y = static_cast<float>(range.sums[r]) * scales * kInverseSquare;
        if (args.bias != nullptr) y += args.bias[row + r];
        args.y[t * args.ldy + row + r] = round_to(compute, y);
      }
    }
    for (std::int64_t r = 0; r < rows && !columns.empty(); ++r) {
      const float scale = w.part[1].at(row + r);
      for (std::size_t i = 0; i < columns.size(); ++i) {
        range.values[i] = round_to(compute, llm_int8_value(q[(row + r) * w.cols + columns[i]], scale));
      }
      for (std::int64_t t = 0; t < args.m; ++t) {
        float& y = args.y[t * args.ldy + row + r];
        y = add_outliers(compute, y, a.x.data() + t * w.cols, columns, range.values);
      }
    }
  }
}

}  // namespace

QTensor make_llm_int8(const View& q, const View& absmax, float threshold, std::shared_ptr<const void> owner) {
  if (q.dtype() != DType::i8) throw bad_input("LLM.int8 weight: dtype ", name_of(q.dtype()), ", expected i8");
  if (absmax.dtype() != DType::f32 || q.rank() != 2 || absmax.count() != q.dim(0)) {
    throw bad_input("LLM.int8 row maxima: ", name_of(absmax.dtype()), " ", to_string(absmax.shape()),
                    " for a weight of shape ", to_string(q.shape()));
  }
  if (!std::isfinite(threshold) || threshold < 0) throw bad_input("LLM.int8 threshold: ", threshold);
  QTensor w = make(q, absmax, DType::f32, nullptr);
  Tensor part({1}, DType::f32);
  part.as<float>()[0] = threshold;
  w.part[2] = part.view();
  w.owner = std::make_shared<std::pair<std::shared_ptr<const void>, Tensor>>(std::move(owner), part);
  return w;
}

bool is_llm_int8(const QTensor& w) { return !w.part[2].empty(); }

float threshold_of(const QTensor& w) { return is_llm_int8(w) ? w.part[2].at(0) : 0; }

void llm_int8_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  const auto* q = reinterpret_cast<const std::int8_t*>(w.part[0].data());
  exec.pool.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float scale = w.part[1].at(row0 + r);
      for (std::int64_t k = 0; k < w.cols; ++k) out[r * w.cols + k] = llm_int8_value(q[(row0 + r) * w.cols + k], scale);
    }
  });
}

const LlmInt8Steps kRefSteps{&int8_dots_ref, &quantize_ref, &mark_outliers_ref};

void llm_int8_matmul(const QTensor& w, const MatArgs& args, Exec& exec, const LlmInt8Steps& steps) {
  const Arena::Scope scope(exec.arena);
  const float threshold = threshold_of(w);
  const std::span<float> x = exec.arena.take<float>(args.m * w.cols);
  const Activations a{.x = x,
                      .codes = exec.arena.take<std::int8_t>(args.m * w.cols),
                      .scale = exec.arena.take<float>(args.m),
                      .is_outlier = exec.arena.take<std::uint8_t>(w.cols),
                      .columns = exec.arena.take<std::int32_t>(w.cols)};
  exec.pool.run(args.m, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* row = x.data() + t * w.cols;
      round_row(exec.compute, args.x + t * args.ldx, w.cols, row, w.cols);
      a.scale[static_cast<std::size_t>(t)] = steps.quantize(row, w.cols, threshold, a.codes.data() + t * w.cols);
    }
  });
  std::span<const std::int32_t> columns;
  if (threshold > 0) columns = find_outliers(args.m, w.cols, threshold, a, steps, exec);
  const std::span<std::int64_t> sums = exec.arena.take<std::int64_t>(kRows * exec.pool.size());
  const auto each = static_cast<std::int64_t>(columns.size());
  const std::span<float> values = exec.arena.take<float>(each * exec.pool.size());
  exec.pool.run(w.rows, kRows, [&](std::int64_t begin, std::int64_t end, int worker) {
    multiply_rows(w, args, a, columns, exec.compute, steps,
                  {begin, end, sums.data() + worker * kRows, values.data() + worker * each});
  });
}

}  // namespace nibble::rows8
