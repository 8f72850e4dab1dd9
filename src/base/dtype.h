// Element types of tensors, and the exact scalar conversions of the small float formats.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3fn,
  f8_e5m2,
  f8_e4m3fnuz,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
};

/// Bytes of one element.
std::size_t size_of(DType dtype);

/// nibble's own short name: "f32", "bf16", "f8_e4m3fn", "bool", ...
std::string_view name_of(DType dtype);

/// The name in a safetensors header: "F32", "BF16", "F8_E4M3", "F8_E4M3FNUZ" (since safetensors 0.7), ...
std::string_view safetensors_name(DType dtype);
std::optional<DType> dtype_from_safetensors(std::string_view name);

/// The name in config.json and in PyTorch: "float32", "bfloat16", "float8_e4m3fn", ...
std::string_view torch_name(DType dtype);

/// From any spelling people use: "f32", "fp32", "float32", "torch.float32", "bf16", "half", "float8_e4m3fn", ...
std::optional<DType> dtype_from_name(std::string_view name);

bool is_float(DType dtype);

/// f32 -> storage bits, rounding to nearest even. NaN stays NaN, infinities and overflow become infinity where the
/// format has one; the formats without infinity (e4m3fn, e4m3fnuz) turn them into NaN. PyTorch 2.13 does the same
/// except that its e4m3fn saturates at 448: who needs that clamps first, as Quanto does.
std::uint16_t f32_to_bf16(float value);
std::uint16_t f32_to_f16(float value);
std::uint8_t f32_to_f8_e4m3fn(float value);
std::uint8_t f32_to_f8_e5m2(float value);
std::uint8_t f32_to_f8_e4m3fnuz(float value);

/// Storage bits -> f32, exact.
float bf16_to_f32(std::uint16_t bits);
float f16_to_f32(std::uint16_t bits);
float f8_e4m3fn_to_f32(std::uint8_t bits);
float f8_e5m2_to_f32(std::uint8_t bits);
float f8_e4m3fnuz_to_f32(std::uint8_t bits);

/// `value` rounded to the nearest value of a float dtype (f32: unchanged), ties to even.
float round_to(DType dtype, float value);

/// Element `index` of an array of `dtype` at `data` (any alignment) as f32; integers are converted, bool is 0 or 1.
float load_as_f32(DType dtype, const void* data, std::int64_t index);

/// Stores `value` as element `index` (any alignment): floats are rounded, integers rounded half to even and clamped.
void store_from_f32(DType dtype, void* data, std::int64_t index, float value);

/// Whole arrays of `count` elements; `from` may have any alignment.
void convert_to_f32(DType from_type, const void* from, float* to, std::int64_t count);
void convert_from_f32(DType to_type, const float* from, void* to, std::int64_t count);

}  // namespace nibble
