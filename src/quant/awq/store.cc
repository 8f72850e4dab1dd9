#include <cstring>

#include "quant/awq/awq.h"
#include "quant/awq/packing.h"

namespace nibble::awq {
namespace {

Tensor codes_gemm(const QTensor& w, Exec& exec) {
  Tensor out({w.cols, w.rows / 8}, DType::i32);
  auto* const words = reinterpret_cast<std::uint32_t*>(out.data());
  affine::unpack_blocks(
      w,
      [&](const affine::CodeBlock& block) {
        for (std::int64_t k = 0; k < block.cols; ++k) {
          for (std::int64_t c = 0; c < block.rows / 8; ++c) {
            std::uint32_t word = 0;
            for (std::size_t i = 0; i < 8; ++i) {
              word |= std::uint32_t{block.codes[(8 * c + kGemmOrder[i]) * affine::kBlockCols + k]} << (4 * i);
            }
            words[(block.col0 + k) * (w.rows / 8) + block.row0 / 8 + c] = word;
          }
        }
      },
      exec);
  return out;
}

Tensor codes_gemv(const QTensor& w, Exec& exec) {
  Tensor out({w.rows, w.cols / 8}, DType::i32);
  auto* const words = reinterpret_cast<std::uint32_t*>(out.data());
  affine::unpack_blocks(
      w,
      [&](const affine::CodeBlock& block) {
        for (std::int64_t r = 0; r < block.rows; ++r) {
          const std::uint8_t* codes = block.codes + r * affine::kBlockCols;
          for (std::int64_t k = 0; k < block.cols; ++k) {
            words[((block.row0 + r) * w.cols + block.col0 + k) / 8] |= std::uint32_t{codes[k]} << (k % 8 * 4);
          }
        }
      },
      exec);
  return out;
}

Tensor codes_fast(const QTensor& w, Exec& exec) {
  Tensor out({w.rows / 4, w.cols}, DType::i16);
  auto* const words = reinterpret_cast<std::uint16_t*>(out.data());
  affine::unpack_blocks(
      w,
      [&](const affine::CodeBlock& block) {
        for (std::int64_t r = 0; r < block.rows; ++r) {
          const std::uint8_t* codes = block.codes + r * affine::kBlockCols;
          for (std::int64_t k = 0; k < block.cols; ++k) {
            const FastPlace place = fast_place(block.row0 + r, block.col0 + k, w.cols);
            const int code = codes[k / 32 * 32 + kFastOrder[static_cast<std::size_t>(k % 32)]];
            words[place.word] = static_cast<std::uint16_t>(words[place.word] | code << place.shift);
          }
        }
      },
      exec);
  return out;
}

/// [rows, groups] and its padding as [rows, stored].
Tensor padded(const View& head, const Tensor& padding, std::int64_t stored) {
  const std::int64_t rows = head.dim(0), groups = head.dim(1), size = static_cast<std::int64_t>(size_of(head.dtype()));
  Tensor out({rows, stored}, head.dtype());
  for (std::int64_t r = 0; r < rows; ++r) {
    std::byte* row = out.data() + r * stored * size;
    std::memcpy(row, head.data() + r * groups * size, static_cast<std::size_t>(groups * size));
    if (padding.count() == 0) continue;
    std::memcpy(row + groups * size, padding.data() + r * (stored - groups) * size,
                static_cast<std::size_t>((stored - groups) * size));
  }
  return out;
}

Tensor as_u8(const View& numbers) {
  Tensor out(numbers.shape(), DType::u8);
  for (std::int64_t i = 0; i < numbers.count(); ++i) out.data()[i] = static_cast<std::byte>(numbers.at(i));
  return out;
}

Tensor pack_nibbles(const View& codes, bool gemm_order) {
  Tensor out({codes.dim(0), codes.dim(1) / 8}, DType::i32);
  for (std::int64_t w = 0; w < out.count(); ++w) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      const std::int64_t place = gemm_order ? kGemmOrder[i] : static_cast<std::int64_t>(i);
      word |= std::to_integer<std::uint32_t>(codes.data()[w * 8 + place]) << (4 * i);
    }
    std::memcpy(out.data() + w * 4, &word, sizeof word);
  }
  return out;
}

}  // namespace

std::vector<StoredTensor> store(const std::string& module, const LinearWeights& linear, Exec& exec) {
  const QTensor& w = linear.weight;
  const auto* record = dynamic_cast<const Record*>(linear.record.get());
  check(w.layout == &affine::kLayout && record != nullptr && w.bits == 4 && !affine::has_order(w),
        "awq::store: not an AWQ weight");
  const std::int64_t groups = affine::groups_of(w.cols, w.group), stored = zeros_width(groups, w.group) * 8;
  std::vector<StoredTensor> tensors;
  const auto add = [&](const char* part, Tensor tensor) { tensors.push_back({module + part, std::move(tensor)}); };
  switch (record->variant) {
    case Variant::gemm:
      add(".qweight", codes_gemm(w, exec));
      add(".qzeros", pack_nibbles(transposed(as_u8(w.part[2])), true));
      add(".scales", transposed(w.part[1]));
      break;
    case Variant::gemv:
      add(".qweight", codes_gemv(w, exec));
      add(".qzeros", pack_nibbles(padded(as_u8(w.part[2]), record->zeros_padding, stored), false));
      add(".scales", padded(w.part[1], record->scales_padding, stored));
      break;
    case Variant::gemv_fast:
    case Variant::llm_awq: {
      Tensor zeros(w.part[2]);
      flip_signs(zeros);
      add(".qweight", codes_fast(w, exec));
      add(record->variant == Variant::llm_awq ? ".scaled_zeros" : ".qzeros",
          transposed(padded(zeros, record->zeros_padding, stored)));
      add(".scales", transposed(padded(w.part[1], record->scales_padding, stored)));
      break;
    }
  }
  if (linear.bias) add(".bias", Tensor(*linear.bias));
  return tensors;
}

}  // namespace nibble::awq
