#include <algorithm>
#include <cstring>

#include "layout/affine/affine.h"
#include "quant/common/bit_stream.h"
#include "quant/gptq/gptq.h"

namespace nibble::gptq {
namespace {

/// Codes of consecutive inputs: unit by unit, all rows of a unit together, since a word row is contiguous in the file.
void fill_in_order(const ModuleParts& parts, const affine::CodeBlock& block) {
  const std::int32_t bits = parts.spec.bits;
  for (std::int64_t k = 0; k < block.cols; k += kUnit) {
    const std::byte* words = parts.qweight.data() + ((block.col0 + k) / kUnit * bits * parts.rows + block.row0) * 4;
    for (std::int64_t r = 0; r < block.rows; ++r) {
      unpack_unit(words + r * 4, parts.rows, bits, block.codes + r * affine::kBlockCols + k);
    }
  }
}

/// The words themselves: a row of them is contiguous in the file.
void fill_words(const ModuleParts& parts, const affine::WordBlock& block) {
  const std::int64_t per_word = 32 / parts.spec.bits;
  for (std::int64_t w = 0; w < block.cols / per_word; ++w) {
    std::memcpy(block.words + w * affine::kBlockRows,
                parts.qweight.data() + ((block.col0 / per_word + w) * parts.rows + block.row0) * 4,
                static_cast<std::size_t>(block.rows) * 4);
  }
}

/// Codes of the inputs that `order` names.
void fill_by_order(const ModuleParts& parts, const affine::CodeBlock& block) {
  for (std::int64_t i = 0; i < block.cols; ++i) {
    const std::int64_t k = parts.order[static_cast<std::size_t>(block.col0 + i)];
    for (std::int64_t r = 0; r < block.rows; ++r) {
      block.codes[r * affine::kBlockCols + i] = static_cast<std::uint8_t>(
          code_in(parts.qweight.data() + (block.row0 + r) * 4, parts.rows, parts.spec.bits, k));
    }
  }
}

/// Zero points as integers in f16, [rows, groups]: at most 256, so exact.
Tensor zero_points(const ModuleParts& parts, Zeros zeros, Exec& exec) {
  Tensor out({parts.rows, parts.groups}, DType::f16);
  const std::int64_t words = parts.rows * parts.spec.bits / 32;
  const std::array<std::uint16_t, 257> f16 = small_f16();
  const std::uint32_t add = zeros == Zeros::v1 ? 1 : 0;
  exec.pool.run(parts.rows, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t g = 0; g < parts.groups; ++g) {
      const std::byte* fields = parts.qzeros.data() + g * words * 4;
      for (std::int64_t n = begin; n < end; ++n) {
        const std::uint16_t value = f16[code_in(fields, 1, parts.spec.bits, n) + add];
        std::memcpy(out.data() + (n * parts.groups + g) * 2, &value, sizeof value);
      }
    }
  });
  return out;
}

}  // namespace

Reader::Reader(std::shared_ptr<const Checkpoint> checkpoint)
    : checkpoint_(std::move(checkpoint)),
      config_(parse(QuantConfig(*checkpoint_))),
      modules_(modules_with(*checkpoint_, {"qweight", "qzeros", "g_idx"})) {}

bool Reader::has(std::string_view module) const { return std::binary_search(modules_.begin(), modules_.end(), module); }

LinearWeights Reader::load(const std::string& module, LinearSize size, Exec& exec) const {
  const PackedModule tensors(*checkpoint_, module);
  const ModuleParts parts = this->parts(tensors, size);
  auto record = std::make_shared<Record>();
  record->zeros = zeros_of(parts).zeros;
  record->blank_g_idx = parts.blank_g_idx;
  affine::Parts packed{.rows = parts.rows,
                       .cols = parts.cols,
                       .group = parts.group,
                       .bits = parts.spec.bits,
                       .offset_kind = affine::Offset::zero_point,
                       .dtype = DType::f32,
                       .scale = transposed(parts.scales),
                       .offset = zero_points(parts, record->zeros, exec),
                       .order = {}};
  LinearWeights linear;
  if (!parts.order.empty()) {
    packed.order = Tensor(View(parts.order.data(), {parts.cols}, DType::i32));
    linear.weight = affine::pack_blocks(
        std::move(packed), [&](const affine::CodeBlock& block) { fill_by_order(parts, block); }, exec);
  } else if (parts.spec.bits == 4 || parts.spec.bits == 8) {
    linear.weight = affine::pack_words(
        std::move(packed), [&](const affine::WordBlock& block) { fill_words(parts, block); }, exec);
  } else {
    linear.weight = affine::pack_blocks(
        std::move(packed), [&](const affine::CodeBlock& block) { fill_in_order(parts, block); }, exec);
  }
  linear.bias = tensors.bias(parts.rows);
  linear.record = std::move(record);
  return linear;
}

LinearSize Reader::size(std::string_view module) const {
  const ModuleParts parts = this->parts(PackedModule(*checkpoint_, std::string(module)), {});
  return {parts.rows, parts.cols};
}

std::string Reader::describe(std::string_view module) const {
  const PackedModule tensors(*checkpoint_, std::string(module));
  const ModuleParts parts = this->parts(tensors, {});
  const Verdict verdict = zeros_of(parts);
  std::string text = cat("int", parts.spec.bits, ", group_size ", parts.spec.group, parts.spec.sym ? ", sym" : ", asym",
                         parts.spec.desc_act ? ", desc_act" : "");
  if (!parts.order.empty()) text += ", inputs reordered by g_idx";
  if (parts.blank_g_idx) text += ", blank g_idx read as consecutive groups";
  text += verdict.zeros == Zeros::v1 ? ", zero points v1 (z - 1 stored; " : ", zero points v2 (";
  return text + verdict.why + ")";
}

}  // namespace nibble::gptq
