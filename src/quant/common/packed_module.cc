#include "quant/common/packed_module.h"

#include <algorithm>
#include <cstring>

namespace nibble {

const TensorEntry* PackedModule::find(std::string_view part) const { return checkpoint_.find(cat(module_, ".", part)); }

const TensorEntry& PackedModule::need(std::string_view part) const {
  return quant::need_tensor(checkpoint_, cat(module_, ".", part));
}

void PackedModule::expect(const TensorEntry& tensor, DType dtype, const Shape& shape, std::string_view because) {
  if (tensor.view.dtype() == dtype && tensor.view.shape() == shape) return;
  throw wrong_tensor(tensor, "found ", name_of(tensor.view.dtype()), " ", to_string(tensor.view.shape()), ", expected ",
                     name_of(dtype), " ", to_string(shape), " (", because, ")");
}

void PackedModule::expect_float(const TensorEntry& tensor, const Shape& shape, std::string_view because) {
  const DType dtype = tensor.view.dtype();
  expect(tensor, dtype == DType::f32 || dtype == DType::bf16 ? dtype : DType::f16, shape, because);
}

void PackedModule::check_size(const TensorEntry& tensor, LinearSize found, LinearSize wanted) const {
  quant::check_size(tensor, found.rows, found.cols, wanted.rows, wanted.cols);
  if (const TensorEntry* plain = find("weight")) {
    throw wrong_tensor(*plain, "stored plain and quantized (", printable(tensor.name), " is there too)");
  }
}

std::optional<View> PackedModule::bias(std::int64_t rows) const { return quant::bias_of(checkpoint_, module_, rows); }

std::vector<std::string> modules_with(const Checkpoint& checkpoint, std::initializer_list<std::string_view> parts) {
  std::vector<std::string> modules;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    const std::string_view name = tensor.name;
    const std::size_t dot = name.rfind('.');
    if (dot == std::string_view::npos || std::find(parts.begin(), parts.end(), name.substr(dot + 1)) == parts.end()) {
      continue;
    }
    modules.emplace_back(name.substr(0, dot));
  }
  std::sort(modules.begin(), modules.end());
  modules.erase(std::unique(modules.begin(), modules.end()), modules.end());
  return modules;
}

namespace {

template <class T>
void transpose_into(const std::byte* from, std::int64_t rows, std::int64_t cols, std::byte* to) {
  constexpr std::int64_t kTile = 32;
  constexpr std::int64_t kSize = sizeof(T);
  for (std::int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (std::int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (std::int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
        for (std::int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
          std::memcpy(to + (c * rows + r) * kSize, from + (r * cols + c) * kSize, sizeof(T));
        }
      }
    }
  }
}

}  // namespace

Tensor transposed(const View& matrix) {
  const std::int64_t rows = matrix.dim(0), cols = matrix.dim(1);
  Tensor out({cols, rows}, matrix.dtype());
  switch (size_of(matrix.dtype())) {
    case 1: transpose_into<std::uint8_t>(matrix.data(), rows, cols, out.data()); break;
    case 2: transpose_into<std::uint16_t>(matrix.data(), rows, cols, out.data()); break;
    case 4: transpose_into<std::uint32_t>(matrix.data(), rows, cols, out.data()); break;
    default: transpose_into<std::uint64_t>(matrix.data(), rows, cols, out.data());
  }
  return out;
}

std::array<std::uint16_t, 257> small_f16() {
  std::array<std::uint16_t, 257> table;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = f32_to_f16(static_cast<float>(i));
  return table;
}

}  // namespace nibble
