#include <algorithm>
#include <cstring>

#include "layout/affine/codes.h"
#include "quant/awq/awq.h"
#include "quant/awq/packing.h"
#include "quant/common/bit_stream.h"

namespace nibble::awq {
namespace {

/// Words of eight outputs of one input become words of eight inputs of one output.
void fill_gemm(const ModuleParts& parts, const affine::WordBlock& block) {
  const std::int64_t words = parts.rows / 8;
  for (std::int64_t k = 0; k < block.cols; k += 8) {
    affine::WordLanes<8> set = {};
    for (std::int64_t i = 0; i < std::min<std::int64_t>(8, block.cols - k); ++i) {
      std::memcpy(set[i], parts.qweight.data() + ((block.col0 + k + i) * words + block.row0 / 8) * 4,
                  static_cast<std::size_t>(block.rows / 8) * 4);
    }
    affine::turn_fields<4>(set);
    std::uint32_t* to = block.words + k / 8 * affine::kBlockRows;
    for (std::int64_t c = 0; c < block.rows / 8; ++c) {
      for (std::size_t i = 0; i < 8; ++i) to[8 * c + kGemmOrder[i]] = set[i][c];
    }
  }
}

void fill_gemv(const ModuleParts& parts, const affine::CodeBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    const std::byte* words = parts.qweight.data() + ((block.row0 + r) * parts.cols + block.col0) / 8 * 4;
    for (std::int64_t k = 0; k < block.cols; k += 8) {
      const std::uint64_t eight = spread_nibbles(word_at(words, k / 8));
      std::memcpy(block.codes + r * affine::kBlockCols + k, &eight, sizeof eight);
    }
  }
}

void fill_fast(const ModuleParts& parts, const affine::CodeBlock& block) {
  for (std::int64_t r = 0; r < block.rows; ++r) {
    std::uint8_t* codes = block.codes + r * affine::kBlockCols;
    for (std::int64_t k = 0; k < block.cols; k += 4) {
      const FastPlace place = fast_place(block.row0 + r, block.col0 + k, parts.cols);
      std::uint16_t word;
      std::memcpy(&word, parts.qweight.data() + place.word * 2, sizeof word);
      for (std::int64_t i = 0; i < 4; ++i) {
        codes[(k + i) / 32 * 32 + kFastOrder[static_cast<std::size_t>((k + i) % 32)]] = word >> (4 * i) & 15;
      }
    }
  }
}

/// Zero points as u8: gemm [groups, rows], gemv [rows, stored groups].
Tensor unpack_nibbles(const View& words, bool gemm_order) {
  Tensor out({words.dim(0), words.dim(1) * 8}, DType::u8);
  for (std::int64_t w = 0; w < words.count(); ++w) {
    const std::uint32_t word = word_at(words.data(), w);
    for (std::size_t i = 0; i < 8; ++i) {
      const std::int64_t place = gemm_order ? kGemmOrder[i] : static_cast<std::int64_t>(i);
      out.data()[w * 8 + place] = static_cast<std::byte>(word >> (4 * i) & 15);
    }
  }
  return out;
}

/// Columns [begin, end) of a matrix.
Tensor columns(const View& matrix, std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = matrix.dim(0), size = static_cast<std::int64_t>(size_of(matrix.dtype()));
  Tensor out({rows, end - begin}, matrix.dtype());
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(out.data() + r * (end - begin) * size, matrix.data() + (r * matrix.dim(1) + begin) * size,
                static_cast<std::size_t>((end - begin) * size));
  }
  return out;
}

/// The columns after `groups`; no tensor when they are zero.
Tensor padding(const View& matrix, std::int64_t groups) {
  Tensor rest = columns(matrix, groups, matrix.dim(1));
  const auto bytes = rest.bytes();
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }) ? Tensor() : rest;
}

Tensor as_f16(const View& codes) {
  Tensor out(codes.shape(), DType::f16);
  const std::array<std::uint16_t, 257> f16 = small_f16();
  for (std::int64_t i = 0; i < codes.count(); ++i) {
    std::memcpy(out.data() + 2 * i, &f16[std::to_integer<std::size_t>(codes.data()[i])], 2);
  }
  return out;
}

/// The tensors of scales and zero points as [rows, stored groups].
struct Factors {
  Tensor scales, zeros;
};

Factors by_row(const ModuleParts& parts) {
  switch (parts.variant) {
    case Variant::gemm: return {transposed(parts.scales), transposed(unpack_nibbles(parts.qzeros, true))};
    case Variant::gemv: return {Tensor(parts.scales), unpack_nibbles(parts.qzeros, false)};
    default: return {transposed(parts.scales), transposed(parts.qzeros)};
  }
}

}  // namespace

Reader::Reader(std::shared_ptr<const Checkpoint> checkpoint)
    : checkpoint_(std::move(checkpoint)),
      config_(parse(QuantConfig(*checkpoint_), *checkpoint_)),
      modules_(modules_with(*checkpoint_, {"qweight", "qzeros", "scaled_zeros"})) {}

bool Reader::has(std::string_view module) const { return std::binary_search(modules_.begin(), modules_.end(), module); }

LinearWeights Reader::load(const std::string& module, LinearSize size, Exec& exec) const {
  const PackedModule tensors(*checkpoint_, module);
  const ModuleParts parts = this->parts(tensors, size);
  const Factors factors = by_row(parts);
  auto record = std::make_shared<Record>();
  record->variant = parts.variant;
  record->scales_padding = padding(factors.scales, parts.groups);
  record->zeros_padding = padding(factors.zeros, parts.groups);
  const bool fast = parts.variant == Variant::gemv_fast || parts.variant == Variant::llm_awq;
  affine::Parts packed{.rows = parts.rows,
                       .cols = parts.cols,
                       .group = parts.group,
                       .bits = 4,
                       .offset_kind = fast ? affine::Offset::shift : affine::Offset::zero_point,
                       .dtype = DType::f32,
                       .scale = columns(factors.scales, 0, parts.groups),
                       .offset = columns(factors.zeros, 0, parts.groups),
                       .order = {}};
  if (fast) {
    flip_signs(packed.offset);  // stored is -(scale * zero), a shift is subtracted
  } else {
    packed.offset = as_f16(packed.offset);
  }
  LinearWeights linear;
  if (parts.variant == Variant::gemm) {
    linear.weight = affine::pack_words(
        std::move(packed), [&](const affine::WordBlock& block) { fill_gemm(parts, block); }, exec);
  } else {
    linear.weight = affine::pack_blocks(
        std::move(packed),
        [&](const affine::CodeBlock& block) { fast ? fill_fast(parts, block) : fill_gemv(parts, block); }, exec);
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
  const ModuleParts parts = this->parts(PackedModule(*checkpoint_, std::string(module)), {});
  std::string text = cat(name_of(parts.variant), " int4, group_size ", parts.group);
  if (!config_.version.empty() && config_.version != name_of(parts.variant))
    text += cat(" (version ", config_.version, ")");
  const bool scaled = parts.variant == Variant::gemv_fast || parts.variant == Variant::llm_awq;
  return text + (scaled ? ", zero points stored scaled, as -scale * z" : ", zero points as they are");
}

}  // namespace nibble::awq
