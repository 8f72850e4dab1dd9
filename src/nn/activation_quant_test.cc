#include "nn/activation_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "layout/dense/dense.h"
#include "layout/rows8/rows8.h"
#include "nn/attention.h"

namespace nibble::nn {
namespace {

struct Context {
  ThreadPool pool{2};
  Arena arena;
  Exec exec{Target::cpu, pool, arena, DType::f32};
};

TEST(QuantizeCode, Int8) {
  EXPECT_EQ(quantize_code(DType::i8, DType::f32, 0.5f, 1), 0);  // halves to even
  EXPECT_EQ(quantize_code(DType::i8, DType::f32, 1.5f, 1), 2);
  EXPECT_EQ(quantize_code(DType::i8, DType::f32, -1000, 1), -128);
  EXPECT_EQ(quantize_code(DType::i8, DType::f32, 1000, 0.5f), 127);
  EXPECT_EQ(quantize_code(DType::i8, DType::f32, std::numeric_limits<float>::quiet_NaN(), 1), 0);
  // 8.53 is 8.5 in bf16, which rounds to 8: the model's float type decides.
  EXPECT_EQ(quantize_code(DType::i8, DType::f32, 8.53f, 1), 9);
  EXPECT_EQ(quantize_code(DType::i8, DType::bf16, 8.51f, 1), 8);
}

TEST(QuantizeCode, Float8) {
  EXPECT_EQ(quantize_code(DType::f8_e4m3fn, DType::f32, 1000, 1), 448);
  EXPECT_EQ(quantize_code(DType::f8_e5m2, DType::f32, -1e9f, 1), -57344);
  EXPECT_EQ(quantize_code(DType::f8_e4m3fn, DType::f32, 3.3f, 2), round_to(DType::f8_e4m3fn, 1.65f));
}

/// n x k int8 codes with a scale per row, and inputs.
struct Case {
  static constexpr std::int64_t kRows = 5, kCols = 37, kTokens = 3;
  Tensor q{{kRows, kCols}, DType::i8}, scale{{kRows}, DType::f32};
  std::vector<float> x;
  Linear linear;

  explicit Case(DType activation) {
    Rng rng(5);
    for (std::int8_t& code : q.as<std::int8_t>()) code = static_cast<std::int8_t>(rng.next() & 0xff);
    for (float& s : scale.as<float>()) s = static_cast<float>(0.001 + 0.01 * rng.uniform());
    for (std::int64_t i = 0; i < kTokens * kCols; ++i) x.push_back(static_cast<float>(rng.normal()));
    linear.weight = rows8::make(q, scale, DType::f32, q.owner());
    for (std::int64_t i = 0; i < kRows; ++i) linear.bias.push_back(static_cast<float>(rng.normal()));
    linear.activation = ActivationQuant{activation, 0.03f, 0.05f, false};
  }

  std::vector<float> forward() {
    Context c;
    std::vector<float> y(kTokens * kRows);
    linear.forward(x.data(), kTokens, y.data(), c.exec);
    return y;
  }

  /// The sum of products of codes, times one weight factor, by definition.
  float expected(std::int64_t token, std::int64_t row) {
    double sum = 0;
    for (std::int64_t j = 0; j < kCols; ++j) {
      const float value = x[static_cast<std::size_t>(token * kCols + j)];
      sum += static_cast<double>(quantize_code(linear.activation->qtype, DType::f32, value, 0.03f)) *
             q.as<std::int8_t>()[static_cast<std::size_t>(row * kCols + j)];
    }
    return static_cast<float>(sum);
  }
};

TEST(ForwardQuantized, Int8TimesInt8IsExact) {
  Case c(DType::i8);
  const std::vector<float> y = c.forward();
  for (std::int64_t t = 0; t < Case::kTokens; ++t) {
    for (std::int64_t r = 0; r < Case::kRows; ++r) {
      const float factor = 0.03f * c.scale.as<float>()[static_cast<std::size_t>(r)];
      const float want = c.expected(t, r) * factor + c.linear.bias[static_cast<std::size_t>(r)];
      EXPECT_EQ(y[static_cast<std::size_t>(t * Case::kRows + r)], want);
    }
  }
}

TEST(ForwardQuantized, Float8InputsUseRoundedValues) {
  Case c(DType::f8_e4m3fn);
  const std::vector<float> y = c.forward();
  for (std::int64_t t = 0; t < Case::kTokens; ++t) {
    for (std::int64_t r = 0; r < Case::kRows; ++r) {
      const float factor = 0.03f * c.scale.as<float>()[static_cast<std::size_t>(r)];
      const float want = c.expected(t, r) * factor + c.linear.bias[static_cast<std::size_t>(r)];
      EXPECT_NEAR(y[static_cast<std::size_t>(t * Case::kRows + r)], want, 1e-5 * std::abs(want) + 1e-5);
    }
  }
}

TEST(ForwardQuantized, OutputsBecomeCodes) {
  Case c(DType::i8);
  const std::vector<float> plain = c.forward();
  c.linear.activation->quantize_output = true;
  const std::vector<float> rounded = c.forward();
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(rounded[i], 0.05f * quantize_code(DType::i8, DType::f32, plain[i], 0.05f));
  }
}

// -(-128) is -128 in int8: what rotate_half of a quantized q or k makes of it.
TEST(Attention, NegatedLowestCodeWraps) {
  Context c;
  Attention a;
  a.heads = a.kv_heads = 1;
  a.head_dim = 2;
  Tensor eye({2, 2}, DType::f32);
  eye.as<float>()[0] = eye.as<float>()[3] = 1;
  for (Linear* linear : {&a.q, &a.k, &a.v, &a.o}) linear->weight = dense::make(eye, eye.owner());
  a.k.activation = ActivationQuant{DType::i8, 0.01f, 0.01f, true};

  KvShape shape;
  shape.layers = shape.kv_heads = 1;
  shape.head_dim = 2;
  KvCache cache(shape);
  const PassSeq seq{cache.open(), 0, 1, 0};
  ASSERT_TRUE(cache.reserve(seq.sequence, 1));
  const float cos = 0.5f, sin = 0.25f;
  Pass pass;
  pass.rows = 1;
  pass.seqs = {&seq, 1};
  pass.rope = {&cos, &sin, 2};
  pass.cache = &cache;
  const float x[2] = {0.3f, -5.0f};
  float y[2];
  a.forward(x, pass, y, c.exec);
  const float k0 = 0.01f * 30, k1 = 0.01f * -128;
  EXPECT_EQ(load_as_f32(DType::f32, cache.k_pages(seq.sequence, 0)[0], 0), k0 * cos + k1 * sin);
  EXPECT_EQ(load_as_f32(DType::f32, cache.k_pages(seq.sequence, 0)[0], 1), k1 * cos + k0 * sin);
}

}  // namespace
}  // namespace nibble::nn
