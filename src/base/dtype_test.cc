#include "base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace nibble {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A small float format written down from its definition, independently of the code under test.
struct Format {
  DType dtype;
  int bits, mantissa, bias;
  unsigned max_code;  ///< largest finite magnitude
  bool has_infinity, has_negative_zero;
};

constexpr Format kFormats[] = {
    {DType::f16, 16, 10, 15, 0x7bff, true, true},      {DType::bf16, 16, 7, 127, 0x7f7f, true, true},
    {DType::f8_e4m3fn, 8, 3, 7, 0x7e, false, true},    {DType::f8_e5m2, 8, 2, 15, 0x7b, true, true},
    {DType::f8_e4m3fnuz, 8, 3, 8, 0x7f, false, false},
};

double magnitude(const Format& f, unsigned code) {
  const unsigned exponent = code >> f.mantissa, fraction = code & ((1U << f.mantissa) - 1);
  const double scale = std::ldexp(1.0, 1 - f.bias - f.mantissa);
  return exponent == 0 ? fraction * scale
                       : std::ldexp((fraction + (1U << f.mantissa)) * scale, static_cast<int>(exponent) - 1);
}

unsigned encode(const Format& f, float value) {
  std::uint16_t code = 0;
  store_from_f32(f.dtype, &code, 0, value);
  return code;
}

float decode(const Format& f, unsigned code) {
  const auto bits = static_cast<std::uint16_t>(code);
  return load_as_f32(f.dtype, &bits, 0);
}

class SmallFloat : public ::testing::TestWithParam<Format> {};

TEST_P(SmallFloat, EveryCodeDecodesByDefinitionAndComesBack) {
  const Format f = GetParam();
  const unsigned sign = 1U << (f.bits - 1);
  for (unsigned code = 0; code <= f.max_code; ++code) {
    const auto value = static_cast<float>(magnitude(f, code));
    ASSERT_EQ(decode(f, code), value) << code;
    ASSERT_EQ(encode(f, value), code);
    ASSERT_EQ(round_to(f.dtype, value), value);
    if (code == 0 && !f.has_negative_zero) continue;
    ASSERT_EQ(decode(f, code | sign), -value) << code;
    ASSERT_TRUE(std::signbit(decode(f, code | sign))) << code;
    ASSERT_EQ(encode(f, -value), code | sign);
  }
  unsigned finite = 0;
  for (unsigned code = 0; code < 2 * sign; ++code) finite += std::isfinite(decode(f, code)) ? 1 : 0;
  EXPECT_EQ(finite, 2 * (f.max_code + 1) - (f.has_negative_zero ? 0 : 1)) << "the other codes are no numbers";
}

TEST_P(SmallFloat, RoundsToNearestAndTiesToEven) {
  const Format f = GetParam();
  for (unsigned code = 0; code < f.max_code; ++code) {
    const auto middle = static_cast<float>((magnitude(f, code) + magnitude(f, code + 1)) / 2);
    ASSERT_EQ(encode(f, middle), code + (code & 1)) << code;
    ASSERT_EQ(encode(f, std::nextafter(middle, 0.0F)), code) << code;
    ASSERT_EQ(encode(f, std::nextafter(middle, kInfinity)), code + 1) << code;
  }
}

TEST_P(SmallFloat, OverflowBecomesInfinityOrNan) {
  const Format f = GetParam();
  const double top = magnitude(f, f.max_code), step = top - magnitude(f, f.max_code - 1);
  const auto beyond = [&](float value) {
    const float got = round_to(f.dtype, value);
    return f.has_infinity ? got == std::copysign(kInfinity, value) : std::isnan(got);
  };
  const auto edge = static_cast<float>(top + step / 2);
  EXPECT_EQ(encode(f, std::nextafter(edge, 0.0F)), f.max_code);
  EXPECT_EQ(beyond(edge), (f.max_code & 1) == 1) << "a tie goes to the even code";
  for (const float value : {std::nextafter(edge, kInfinity), kInfinity}) {
    EXPECT_TRUE(beyond(value)) << value;
    EXPECT_TRUE(beyond(-value)) << value;
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(round_to(f.dtype, nan)));
  EXPECT_TRUE(std::isnan(round_to(f.dtype, -nan)));
  EXPECT_EQ(round_to(f.dtype, 1e-45F), 0) << "far below the smallest";
  EXPECT_EQ(std::signbit(round_to(f.dtype, -0.0F)), f.has_negative_zero);
}

TEST_P(SmallFloat, ArraysEqualSingleValues) {
  const Format f = GetParam();
  const auto size = static_cast<std::size_t>(f.bits / 8);
  std::vector<float> values;
  for (unsigned code = 0; code <= f.max_code; ++code) values.push_back(static_cast<float>(magnitude(f, code) * 1.01));
  std::vector<unsigned char> bytes(values.size() * size + 1);
  const auto count = static_cast<std::int64_t>(values.size());
  convert_from_f32(f.dtype, values.data(), bytes.data() + 1, count);
  std::vector<float> back(values.size());
  convert_to_f32(f.dtype, bytes.data() + 1, back.data(), count);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float wanted = round_to(f.dtype, values[i]);
    ASSERT_TRUE(back[i] == wanted || (std::isnan(back[i]) && std::isnan(wanted))) << values[i];
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, SmallFloat, ::testing::ValuesIn(kFormats),
                         [](const auto& info) { return std::string(name_of(info.param.dtype)); });

TEST(DType, IntegersRoundHalfToEvenAndClamp) {
  const auto as_i8 = [](float value) {
    std::int8_t out = 0;
    store_from_f32(DType::i8, &out, 0, value);
    return int{out};
  };
  EXPECT_EQ(as_i8(2.5F), 2);
  EXPECT_EQ(as_i8(3.5F), 4);
  EXPECT_EQ(as_i8(-2.5F), -2);
  EXPECT_EQ(as_i8(1e9F), 127);
  EXPECT_EQ(as_i8(-kInfinity), -128);
  EXPECT_EQ(as_i8(std::numeric_limits<float>::quiet_NaN()), 0);
  std::int64_t wide = 0;
  store_from_f32(DType::i64, &wide, 0, 1e30F);
  EXPECT_EQ(wide, std::numeric_limits<std::int64_t>::max());
  store_from_f32(DType::i64, &wide, 0, -1e30F);
  EXPECT_EQ(wide, std::numeric_limits<std::int64_t>::min());
  std::uint64_t unsigned_wide = 1;
  store_from_f32(DType::u64, &unsigned_wide, 0, -1);
  EXPECT_EQ(unsigned_wide, 0U);
  const std::uint64_t big = std::uint64_t{1} << 63;
  EXPECT_EQ(load_as_f32(DType::u64, &big, 0), 0x1p63F);
}

TEST(DType, NamesAreUniqueAndComeBack) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
    EXPECT_EQ(dtype_from_name(torch_name(dtype)), dtype);
    EXPECT_EQ(dtype_from_name("torch." + std::string(torch_name(dtype))), dtype);
    EXPECT_EQ(dtype_from_safetensors(safetensors_name(dtype)), dtype);
  }
  EXPECT_EQ(dtype_from_name("fp16"), DType::f16);
  EXPECT_EQ(dtype_from_name("half"), DType::f16);
  EXPECT_EQ(dtype_from_name("f33"), std::nullopt);
  EXPECT_EQ(dtype_from_safetensors("f32"), std::nullopt);
}

}  // namespace
}  // namespace nibble
