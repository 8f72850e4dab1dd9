// LLM.int8 (Dettmers et al. 2022): the mode of rows8 in which the input is quantized too, at run time, and the few
// input columns with large values ("outliers") are multiplied in floating point. The weight is
//
//   part 0 q          [rows, cols]  i8
//   part 1 scale      [rows]        f32: the row's absolute maximum, not divided by 127
//   part 2 threshold  [1]           f32; its presence is the mode. 0: no outliers
//
//   value = f32(f32(q * scale[row]) * (1/127))
//
// A product follows bitsandbytes on a CPU, step by step. x is rounded to Exec::compute, h = f16(x):
//
//   outliers   columns where any token has |h| >= threshold                 over all m tokens of the call
//   s[t]       max |h[t]| over the entries below the threshold
//   a[t]       round half even(h[t] * f32(f32(1 / s[t]) * 127)), 0 where |h| >= threshold; when m > 1, whole outlier
//              columns are 0
//   y[t, n]    compute(f32(a[t] . q[n]) * f32(s[t] * scale[n]) * 6.200124e-05 + bias[n])
//   y[t, n]    compute(y[t, n] + sum over outlier columns of x[t, k] * compute(value[n, k]))
//
// The integer sums are exact, so every target gives the same bits. Results depend on which tokens share a call: that is
// how the method is defined.
#pragma once
#include "layout/layout.h"

namespace nibble::rows8 {

/// q i8 [rows, cols], absmax f32 [rows], threshold finite and >= 0; else Error(bad_input).
QTensor make_llm_int8(const View& q, const View& absmax, float threshold, std::shared_ptr<const void> owner);

bool is_llm_int8(const QTensor& w);

/// Outlier threshold; 0 when there are no outliers.
float threshold_of(const QTensor& w);

/// The value of one weight of absolute row maximum `scale`.
inline float llm_int8_value(std::int8_t q, float scale) {
  return static_cast<float>(q) * scale * 7.874015718698502e-3F;
}

/// The steps that are worth vectors. All are exact or follow the formulas above bit for bit, so every target gives the
/// same.
struct LlmInt8Steps {
  /// Dot products of `rows` rows of int8 weights (row stride `count`, any alignment) with one row of codes.
  void (*dots)(const std::int8_t* weights, std::int64_t rows, const std::int8_t* codes, std::int64_t count,
               std::int64_t* sums);
  /// a[t] and s[t] of one token (its outlier entries are 0); gives s[t].
  float (*quantize)(const float* x, std::int64_t count, float threshold, std::int8_t* codes);
  /// out[k] = 1 where |h| >= threshold; others are left alone.
  void (*mark_outliers)(const float* x, std::int64_t count, float threshold, std::uint8_t* out);
};

/// Plain C++, and Highway.
extern const LlmInt8Steps kRefSteps, kCpuSteps;

/// The product above.
void llm_int8_matmul(const QTensor& w, const MatArgs& args, Exec& exec, const LlmInt8Steps& steps);

/// Rows as f32.
void llm_int8_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec);

}  // namespace nibble::rows8
