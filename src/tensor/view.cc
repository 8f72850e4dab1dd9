#include "tensor/view.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace nibble {
namespace {
constexpr std::size_t kHugePage = std::size_t{1} << 21;
}

std::int64_t count_of(const Shape& shape, std::size_t element_bytes) {
  constexpr std::int64_t limit = std::int64_t{1} << 62;
  const std::int64_t most = limit / static_cast<std::int64_t>(element_bytes);
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) {
    if (dim < 0) throw bad_input("shape ", to_string(shape), ": negative dimension");
    if (dim != 0 && count > most / dim) throw bad_input("shape ", to_string(shape), ": too many elements");
    count *= dim;
  }
  return count;
}

std::string to_string(const Shape& shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return out + "]";
}

View View::rows(std::int64_t begin, std::int64_t end) const {
  check(!shape_.empty() && begin >= 0 && begin <= end && end <= shape_[0], "View::rows: range");
  Shape shape = shape_;
  shape[0] = end - begin;
  const std::int64_t row = shape_[0] == 0 ? 0 : count_ / shape_[0];
  return {data_ + begin * row * static_cast<std::int64_t>(size_of(dtype_)), std::move(shape), dtype_};
}

View View::reshaped(Shape shape) const {
  View result(data_, std::move(shape), dtype_);
  check(result.count_ == count_, "View::reshaped: element count");
  return result;
}

View View::cast(DType dtype) const {
  check(size_of(dtype) == size_of(dtype_), "View::cast: element size");
  return {data_, shape_, dtype};
}

std::vector<float> View::to_f32() const {
  std::vector<float> out(static_cast<std::size_t>(count_));
  convert_to_f32(dtype_, data_, out.data(), count_);
  return out;
}

namespace {

/// Zeros straight from the system, in huge pages where it can (reading is faster): whoever writes a page first makes
/// it, so that the threads share that work instead of waiting for one to fill it all.
std::shared_ptr<std::byte[]> large_zeros(std::size_t bytes) {
  const std::size_t length = (bytes + kHugePage - 1) / kHugePage * kHugePage + kHugePage;
  void* base = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  auto* memory = static_cast<std::byte*>(base);
  memory += (kHugePage - reinterpret_cast<std::uintptr_t>(base) % kHugePage) % kHugePage;
#if defined(MADV_HUGEPAGE)
  ::madvise(memory, bytes, MADV_HUGEPAGE);  // failing changes nothing else
#endif
  return {memory, [base, length](std::byte*) { ::munmap(base, length); }};
}

std::shared_ptr<std::byte[]> small_zeros(std::size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, bytes == 0 ? 64 : bytes));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, bytes);
  return {memory, [](std::byte* p) { std::free(p); }};
}

}  // namespace

Tensor::Tensor(Shape shape, DType dtype) {
  const std::int64_t count = count_of(shape, size_of(dtype));
  const std::size_t bytes = (static_cast<std::size_t>(count) * size_of(dtype) + 63) / 64 * 64;
  data_ = bytes >= 2 * kHugePage ? large_zeros(bytes) : small_zeros(bytes);
  view_ = View(data_.get(), std::move(shape), dtype);
}

Tensor::Tensor(const View& view) : Tensor(view.shape(), view.dtype()) {
  if (view.size_bytes() > 0) std::memcpy(data_.get(), view.data(), view.size_bytes());
}

}  // namespace nibble
