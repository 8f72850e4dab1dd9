// Reading the signed integers that hold codes, at any alignment.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/dtype.h"
#include "base/error.h"

namespace nibble::codebook {

/// Element `index` of an array of Code at `data`.
template <class Code>
std::int64_t load_code(const std::byte* data, std::int64_t index) {
  Code code;
  std::memcpy(&code, data + index * static_cast<std::int64_t>(sizeof code), sizeof code);
  return code;
}

/// f(a value of the integer type of `dtype`): i8, i16 or i32.
template <class F>
void with_code_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i8: return f(std::int8_t{});
    case DType::i16: return f(std::int16_t{});
    case DType::i32: return f(std::int32_t{});
    default: check(false, "codebook: dtype of codes");
  }
}

}  // namespace nibble::codebook
