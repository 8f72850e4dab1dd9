#include "layout/affine/affine.h"
#include "layout/affine/order.h"
#include "quant/common/bit_stream.h"
#include "quant/gptq/gptq.h"

namespace nibble::gptq {
namespace {

Tensor packed_codes(const QTensor& w, Exec& exec) {
  Tensor out({w.cols * w.bits / 32, w.rows}, DType::i32);
  auto* const words = reinterpret_cast<std::uint32_t*>(out.data());
  const std::int32_t* order = affine::has_order(w) ? affine::order_of(w).data() : nullptr;
  // A word belongs to one row, and so to one thread.
  affine::unpack_blocks(
      w,
      [&](const affine::CodeBlock& block) {
        for (std::int64_t i = 0; i < block.cols; ++i) {
          const std::int64_t k = order != nullptr ? order[block.col0 + i] : block.col0 + i;
          for (std::int64_t r = 0; r < block.rows; ++r) {
            put_code(words + block.row0 + r, w.rows, w.bits, k, block.codes[r * affine::kBlockCols + i]);
          }
        }
      },
      exec);
  return out;
}

Tensor packed_zeros(const QTensor& w, Zeros zeros) {
  const std::int64_t groups = affine::groups_of(w.cols, w.group), count = w.rows * w.bits / 32;
  Tensor out({groups, count}, DType::i32);
  const std::uint32_t mask = (1U << w.bits) - 1;
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t n = 0; n < w.rows; ++n) {
      const auto zero = static_cast<std::uint32_t>(w.part[2].at(n * groups + g));
      const std::uint32_t field = (zeros == Zeros::v1 ? zero - 1 : zero) & mask;
      put_code(reinterpret_cast<std::uint32_t*>(out.data()) + g * count, 1, w.bits, n, field);
    }
  }
  return out;
}

Tensor group_index(const QTensor& w, const Record& record) {
  Tensor out({w.cols}, DType::i32);
  const std::span<std::int32_t> g_idx = out.as<std::int32_t>();
  for (std::int64_t j = 0; j < w.cols && !record.blank_g_idx; ++j) {
    const std::int64_t k = affine::has_order(w) ? affine::order_of(w)[static_cast<std::size_t>(j)] : j;
    g_idx[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(j / w.group);
  }
  return out;
}

}  // namespace

std::vector<StoredTensor> store(const std::string& module, const LinearWeights& linear, Exec& exec) {
  const QTensor& w = linear.weight;
  const auto* record = dynamic_cast<const Record*>(linear.record.get());
  check(w.layout == &affine::kLayout && record != nullptr, "gptq::store: not a GPTQ weight");
  check(w.rows * w.bits % 32 == 0 && w.cols % kUnit == 0, "gptq::store: sizes must fill whole words");
  std::vector<StoredTensor> tensors;
  tensors.push_back({module + ".g_idx", group_index(w, *record)});
  tensors.push_back({module + ".qweight", packed_codes(w, exec)});
  tensors.push_back({module + ".qzeros", packed_zeros(w, record->zeros)});
  tensors.push_back({module + ".scales", transposed(w.part[1])});
  if (linear.bias) tensors.push_back({module + ".bias", Tensor(*linear.bias)});
  return tensors;
}

}  // namespace nibble::gptq
