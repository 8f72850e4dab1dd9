#include "base/dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

struct Row {
  DType dtype;
  std::size_t size;
  std::string_view name, safetensors, torch;
};

constexpr std::array<Row, 16> kRows{{
    {DType::f64, 8, "f64", "F64", "float64"},
    {DType::f32, 4, "f32", "F32", "float32"},
    {DType::f16, 2, "f16", "F16", "float16"},
    {DType::bf16, 2, "bf16", "BF16", "bfloat16"},
    {DType::f8_e4m3fn, 1, "f8_e4m3fn", "F8_E4M3", "float8_e4m3fn"},
    {DType::f8_e5m2, 1, "f8_e5m2", "F8_E5M2", "float8_e5m2"},
    {DType::f8_e4m3fnuz, 1, "f8_e4m3fnuz", "F8_E4M3FNUZ", "float8_e4m3fnuz"},
    {DType::i64, 8, "i64", "I64", "int64"},
    {DType::i32, 4, "i32", "I32", "int32"},
    {DType::i16, 2, "i16", "I16", "int16"},
    {DType::i8, 1, "i8", "I8", "int8"},
    {DType::u64, 8, "u64", "U64", "uint64"},
    {DType::u32, 4, "u32", "U32", "uint32"},
    {DType::u16, 2, "u16", "U16", "uint16"},
    {DType::u8, 1, "u8", "U8", "uint8"},
    {DType::boolean, 1, "bool", "BOOL", "bool"},
}};

const Row& row(DType dtype) { return kRows[static_cast<std::size_t>(dtype)]; }

/// A small binary float: `man` explicit mantissa bits, exponent bias `bias`.
struct Tiny {
  int man, bias;
  std::uint32_t max_code;  ///< largest finite magnitude
  std::uint32_t over;      ///< what lies beyond it
};

/// Magnitude code of |value| (finite or infinite) in a small float, rounded to nearest even. Works on integers only:
/// shift the significand so that its last kept bit is the format's unit in the last place, round, and let the carry run
/// into the exponent.
std::uint32_t encode_magnitude(float value, const Tiny& t) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value) & 0x7fffffffU;
  if (bits >= 0x7f800000U) return t.over;
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const int target = exponent + t.bias;  // biased exponent in the small format; <= 0 is subnormal
  const std::uint32_t significand = bits >> 23 == 0 ? bits & 0x7fffffU : (bits & 0x7fffffU) | 0x800000U;
  const int shift = 23 - t.man + (target <= 0 ? 1 - target : 0);
  if (shift > 25) return 0;
  const std::uint32_t kept = significand >> shift;
  const std::uint32_t rest = significand & ((1U << shift) - 1);
  const std::uint32_t half = 1U << (shift - 1);
  std::uint32_t code = kept + (rest > half || (rest == half && (kept & 1U)) ? 1U : 0U);
  if (target > 0) code += static_cast<std::uint32_t>(target - 1) << t.man;
  return code > t.max_code ? t.over : code;
}

float decode_magnitude(std::uint32_t code, const Tiny& t) {
  const int exponent = static_cast<int>(code >> t.man);
  const std::uint32_t mantissa = code & ((1U << t.man) - 1);
  if (exponent == 0) return std::ldexp(static_cast<float>(mantissa), 1 - t.bias - t.man);
  return std::ldexp(static_cast<float>(mantissa | (1U << t.man)), exponent - t.bias - t.man);
}

constexpr Tiny kF16{10, 15, 0x7bff, 0x7c00};
constexpr Tiny kE4m3fn{3, 7, 0x7e, 0x7f};
constexpr Tiny kE5m2{2, 15, 0x7b, 0x7c};
constexpr Tiny kE4m3fnuz{3, 8, 0x7f, 0x80};

template <class T>
T load(const void* data, std::int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <class T>
void store(void* data, std::int64_t index, T value) {
  std::memcpy(static_cast<char*>(data) + index * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
}

template <class T>
T to_integer(float value) {
  const double rounded = std::nearbyint(static_cast<double>(value));
  if (!(rounded > static_cast<double>(std::numeric_limits<T>::min())))
    return std::isnan(value) ? T{0} : std::numeric_limits<T>::min();
  if (rounded >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<T>(rounded);
}

}  // namespace

std::size_t size_of(DType dtype) { return row(dtype).size; }
std::string_view name_of(DType dtype) { return row(dtype).name; }
std::string_view safetensors_name(DType dtype) { return row(dtype).safetensors; }
std::string_view torch_name(DType dtype) { return row(dtype).torch; }
bool is_float(DType dtype) { return dtype <= DType::f8_e4m3fnuz; }

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const Row& r : kRows) {
    if (r.safetensors == name) return r.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  if (name.substr(0, 6) == "torch.") name.remove_prefix(6);
  for (const Row& r : kRows) {
    if (r.name == name || r.torch == name) return r.dtype;
  }
  static constexpr std::array<std::pair<std::string_view, DType>, 7> aliases{{{"fp32", DType::f32},
                                                                              {"float", DType::f32},
                                                                              {"fp16", DType::f16},
                                                                              {"half", DType::f16},
                                                                              {"double", DType::f64},
                                                                              {"float8", DType::f8_e4m3fn},
                                                                              {"fp8", DType::f8_e4m3fn}}};
  for (const auto& [alias, dtype] : aliases) {
    if (alias == name) return dtype;
  }
  return std::nullopt;
}

std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>(bits >> 16 | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

float bf16_to_f32(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

std::uint16_t f32_to_f16(float value) {
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(value) >> 16 & 0x8000U;
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00U);
  return static_cast<std::uint16_t>(sign | encode_magnitude(value, kF16));
}

float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t magnitude = bits & 0x7fffU;
  if (magnitude >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13);
  if (magnitude >= 0x0400U) return std::bit_cast<float>(sign | ((magnitude << 13) + (112U << 23)));
  const float value = static_cast<float>(magnitude) * 0x1p-24F;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

std::uint8_t f32_to_f8_e4m3fn(float value) {
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(value) >> 24 & 0x80U;
  if (std::isnan(value)) return static_cast<std::uint8_t>(sign | 0x7fU);
  return static_cast<std::uint8_t>(sign | encode_magnitude(value, kE4m3fn));
}

float f8_e4m3fn_to_f32(std::uint8_t bits) {
  const std::uint32_t magnitude = bits & 0x7fU;
  const float value =
      magnitude == 0x7f ? std::numeric_limits<float>::quiet_NaN() : decode_magnitude(magnitude, kE4m3fn);
  return (bits & 0x80U) != 0 ? -value : value;
}

std::uint8_t f32_to_f8_e5m2(float value) {
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(value) >> 24 & 0x80U;
  if (std::isnan(value)) return static_cast<std::uint8_t>(sign | 0x7fU);
  return static_cast<std::uint8_t>(sign | encode_magnitude(value, kE5m2));
}

float f8_e5m2_to_f32(std::uint8_t bits) { return f16_to_f32(static_cast<std::uint16_t>(bits << 8)); }

std::uint8_t f32_to_f8_e4m3fnuz(float value) {
  if (std::isnan(value)) return 0x80;
  const std::uint32_t code = encode_magnitude(value, kE4m3fnuz);
  const std::uint32_t sign = std::bit_cast<std::uint32_t>(value) >> 24 & 0x80U;
  if (code == 0x80U || code == 0) return static_cast<std::uint8_t>(code);  // one NaN, no negative zero
  return static_cast<std::uint8_t>(sign | code);
}

float f8_e4m3fnuz_to_f32(std::uint8_t bits) {
  if (bits == 0x80) return std::numeric_limits<float>::quiet_NaN();
  const float value = decode_magnitude(bits & 0x7fU, kE4m3fnuz);
  return (bits & 0x80U) != 0 ? -value : value;
}

float round_to(DType dtype, float value) {
  switch (dtype) {
    case DType::bf16: return bf16_to_f32(f32_to_bf16(value));
    case DType::f16: return f16_to_f32(f32_to_f16(value));
    case DType::f8_e4m3fn: return f8_e4m3fn_to_f32(f32_to_f8_e4m3fn(value));
    case DType::f8_e5m2: return f8_e5m2_to_f32(f32_to_f8_e5m2(value));
    case DType::f8_e4m3fnuz: return f8_e4m3fnuz_to_f32(f32_to_f8_e4m3fnuz(value));
    default: return value;
  }
}

float load_as_f32(DType dtype, const void* data, std::int64_t index) {
  switch (dtype) {
    case DType::f64: return static_cast<float>(load<double>(data, index));
    case DType::f32: return load<float>(data, index);
    case DType::f16: return f16_to_f32(load<std::uint16_t>(data, index));
    case DType::bf16: return bf16_to_f32(load<std::uint16_t>(data, index));
    case DType::f8_e4m3fn: return f8_e4m3fn_to_f32(load<std::uint8_t>(data, index));
    case DType::f8_e5m2: return f8_e5m2_to_f32(load<std::uint8_t>(data, index));
    case DType::f8_e4m3fnuz: return f8_e4m3fnuz_to_f32(load<std::uint8_t>(data, index));
    case DType::i64: return static_cast<float>(load<std::int64_t>(data, index));
    case DType::i32: return static_cast<float>(load<std::int32_t>(data, index));
    case DType::i16: return load<std::int16_t>(data, index);
    case DType::i8: return load<std::int8_t>(data, index);
    case DType::u64: return static_cast<float>(load<std::uint64_t>(data, index));
    case DType::u32: return static_cast<float>(load<std::uint32_t>(data, index));
    case DType::u16: return load<std::uint16_t>(data, index);
    case DType::u8: return load<std::uint8_t>(data, index);
    case DType::boolean: return load<std::uint8_t>(data, index) != 0 ? 1.0F : 0.0F;
  }
  return 0;
}

void store_from_f32(DType dtype, void* data, std::int64_t index, float value) {
  switch (dtype) {
    case DType::f64: return store(data, index, static_cast<double>(value));
    case DType::f32: return store(data, index, value);
    case DType::f16: return store(data, index, f32_to_f16(value));
    case DType::bf16: return store(data, index, f32_to_bf16(value));
    case DType::f8_e4m3fn: return store(data, index, f32_to_f8_e4m3fn(value));
    case DType::f8_e5m2: return store(data, index, f32_to_f8_e5m2(value));
    case DType::f8_e4m3fnuz: return store(data, index, f32_to_f8_e4m3fnuz(value));
    case DType::i64: return store(data, index, to_integer<std::int64_t>(value));
    case DType::i32: return store(data, index, to_integer<std::int32_t>(value));
    case DType::i16: return store(data, index, to_integer<std::int16_t>(value));
    case DType::i8: return store(data, index, to_integer<std::int8_t>(value));
    case DType::u64: return store(data, index, to_integer<std::uint64_t>(value));
    case DType::u32: return store(data, index, to_integer<std::uint32_t>(value));
    case DType::u16: return store(data, index, to_integer<std::uint16_t>(value));
    case DType::u8: return store(data, index, to_integer<std::uint8_t>(value));
    case DType::boolean: return store(data, index, static_cast<std::uint8_t>(value != 0 ? 1 : 0));
  }
}

void convert_to_f32(DType from_type, const void* from, float* to, std::int64_t count) {
  switch (from_type) {
    case DType::f32: std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float)); return;
    case DType::bf16:
      for (std::int64_t i = 0; i < count; ++i) to[i] = bf16_to_f32(load<std::uint16_t>(from, i));
      return;
    case DType::f16:
      for (std::int64_t i = 0; i < count; ++i) to[i] = f16_to_f32(load<std::uint16_t>(from, i));
      return;
    default:
      for (std::int64_t i = 0; i < count; ++i) to[i] = load_as_f32(from_type, from, i);
  }
}

void convert_from_f32(DType to_type, const float* from, void* to, std::int64_t count) {
  switch (to_type) {
    case DType::f32: std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float)); return;
    case DType::bf16:
      for (std::int64_t i = 0; i < count; ++i) store(to, i, f32_to_bf16(from[i]));
      return;
    default:
      for (std::int64_t i = 0; i < count; ++i) store_from_f32(to_type, to, i, from[i]);
  }
}

}  // namespace nibble
