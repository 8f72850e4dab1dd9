// A View is a small value that names typed elements in memory owned by somebody else (a file mapping, a Tensor).
// Contiguous, row major, any alignment: what files hold. Sizes are checked where a View is made; after that they are
// trusted.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"

namespace nibble {

/// Dimensions, outermost first; empty for a scalar.
using Shape = std::vector<std::int64_t>;

/// Product of the dimensions; throws Error(bad_input) when one is negative or the product times `element_bytes` exceeds
/// 2^62.
std::int64_t count_of(const Shape& shape, std::size_t element_bytes = 1);

/// "[32, 128]".
std::string to_string(const Shape& shape);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType value = DType::i8;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};

class View {
 public:
  View() = default;
  /// `data` must hold count_of(shape) elements of `dtype`.
  View(const void* data, Shape shape, DType dtype)
      : data_(static_cast<const std::byte*>(data)),
        shape_(std::move(shape)),
        count_(count_of(shape_, size_of(dtype))),
        dtype_(dtype) {}

  const std::byte* data() const { return data_; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(std::size_t i) const { return shape_.at(i); }
  std::size_t rank() const { return shape_.size(); }
  DType dtype() const { return dtype_; }
  std::int64_t count() const { return count_; }
  std::size_t size_bytes() const { return static_cast<std::size_t>(count_) * size_of(dtype_); }
  bool empty() const { return count_ == 0; }
  std::span<const std::byte> bytes() const { return {data_, size_bytes()}; }

  /// The elements as T. The only door from tag to type: throws when the dtype or the alignment is another.
  template <class T>
  std::span<const T> as() const {
    check(dtype_ == DTypeOf<T>::value, "View::as: wrong type");
    check(reinterpret_cast<std::uintptr_t>(data_) % alignof(T) == 0, "View::as: misaligned");
    return {reinterpret_cast<const T*>(data_), static_cast<std::size_t>(count_)};
  }

  /// Element `index` (row major) as f32, whatever the dtype.
  float at(std::int64_t index) const { return load_as_f32(dtype_, data_, index); }

  /// Rows [begin, end) of the outermost dimension.
  View rows(std::int64_t begin, std::int64_t end) const;
  /// The same elements under another shape of equal count.
  View reshaped(Shape shape) const;
  /// The same bytes read as another dtype of equal size.
  View cast(DType dtype) const;

  /// All elements as f32.
  std::vector<float> to_f32() const;

 private:
  const std::byte* data_ = nullptr;
  Shape shape_;
  std::int64_t count_ = 0;
  DType dtype_ = DType::f32;
};

/// Memory of its own, 64-byte aligned and zeroed; copies share it.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Shape shape, DType dtype);
  /// A copy of `view`'s bytes.
  explicit Tensor(const View& view);

  const View& view() const { return view_; }
  operator const View&() const { return view_; }
  const Shape& shape() const { return view_.shape(); }
  DType dtype() const { return view_.dtype(); }
  std::int64_t count() const { return view_.count(); }
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::span<std::byte> bytes() { return {data_.get(), view_.size_bytes()}; }
  template <class T>
  std::span<T> as() {
    const std::span<const T> typed = view_.as<T>();
    return {const_cast<T*>(typed.data()), typed.size()};
  }
  /// What keeps the memory alive, for a QTensor's owner.
  std::shared_ptr<const void> owner() const { return data_; }

 private:
  std::shared_ptr<std::byte[]> data_;
  View view_;
};

}  // namespace nibble
