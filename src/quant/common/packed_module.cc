#include "quant/common/packed_module.h"

#include <algorithm>
#include <cstring>

namespace nibble {

const TensorEntry* PackedModule::find(std::string_view part) const {
  return checkpoint_.find(cat(module_, ".", part));
}

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

Tensor transposed(const View& matrix) {
  const std::int64_t rows = matrix.dim(0), cols = matrix.dim(1);
  const auto size = static_cast<std::int64_t>(size_of(matrix.dtype()));
  Tensor out({cols, rows}, matrix.dtype());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      std::memcpy(out.data() + (c * rows + r) * size, matrix.data() + (r * cols + c) * size, static_cast<std::size_t>(size));
    }
  }
  return out;
}

}  // namespace nibble
