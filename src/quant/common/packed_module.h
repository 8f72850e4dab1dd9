// The tensors of one linear module whose codes are packed into words (qweight, qzeros, ...), and the modules that have
// such tensors.
#pragma once
#include <array>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "quant/common/module_tensors.h"
#include "quant/scheme.h"

namespace nibble {

using quant::wrong_tensor;

class PackedModule {
 public:
  PackedModule(const Checkpoint& checkpoint, std::string module)
      : checkpoint_(checkpoint), module_(std::move(module)) {}

  const std::string& module() const { return module_; }

  /// The tensor `module`.`part`; nullptr / Error(bad_input) when missing.
  const TensorEntry* find(std::string_view part) const;
  const TensorEntry& need(std::string_view part) const;

  /// Throws Error(bad_input) unless the tensor has the dtype and the shape; `because` says what the shape follows from.
  static void expect(const TensorEntry& tensor, DType dtype, const Shape& shape, std::string_view because);
  /// The same for f32, f16 or bf16.
  static void expect_float(const TensorEntry& tensor, const Shape& shape, std::string_view because);
  /// Throws Error(bad_input) when the model's config wants another size than `tensor` has, or when there is a plain
  /// weight as well.
  void check_size(const TensorEntry& tensor, LinearSize found, LinearSize wanted) const;

  /// The bias [rows], when there is one.
  std::optional<View> bias(std::int64_t rows) const;

 private:
  const Checkpoint& checkpoint_;
  std::string module_;
};

/// Modules with a tensor of one of the names `parts`, in name order.
std::vector<std::string> modules_with(const Checkpoint& checkpoint, std::initializer_list<std::string_view> parts);

/// Element `index` of i32 or u32 words at any alignment.
inline std::uint32_t word_at(const std::byte* words, std::int64_t index) {
  std::uint32_t word;
  __builtin_memcpy(&word, words + index * 4, sizeof word);
  return word;
}

/// [rows, cols] as [cols, rows], the same bytes per element.
Tensor transposed(const View& matrix);

/// The integers 0 to 256 in f16: zero points.
std::array<std::uint16_t, 257> small_f16();

}  // namespace nibble
