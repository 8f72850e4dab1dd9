// 4-bit quantization with the bits of bitsandbytes' CPU kernels: a float weight in, the parts of its checkpoint out
// (see README.md).
#pragma once
#include <array>
#include <optional>
#include <span>
#include <string>

#include "base/thread_pool.h"
#include "layout/lut4/lut4.h"
#include "tensor/view.h"

namespace nibble::bnb4 {

struct WeightSpec {
  std::string quant_type = "nf4";  ///< "nf4" or "fp4"
  std::int64_t block = 64;         ///< consecutive weights with one scale: 32, 64, ... 4096. Transformers loads 64 only
  /// Scales that minimize each block's squared error instead of the largest magnitudes that the library takes. The
  /// format is the same; the bytes are not the library's.
  bool search_absmax = false;
  bool double_quant = false;  ///< scales in 8 bits, 256 of them with one scale and all with one offset
};

/// Throws Error(bad_input) for a type or block that the format does not have.
void check_spec(const WeightSpec& spec);

/// What double quantization adds.
struct NestedParts {
  Tensor absmax;  ///< f32 [ceil(blocks / 256)]
  float offset = 0;
};

struct StoredWeight {
  Tensor codes;   ///< u8 [ceil(count / 2), 1]: two codes per byte, the first in the high nibble
  Tensor absmax;  ///< f32 [blocks], or u8 [blocks] codes of a nested weight
  std::optional<NestedParts> nested;
};

/// Quantizes `weight` (f32, f16 or bf16, of any shape) as one flat row. `name` begins messages: Error(bad_input) when a
/// value is NaN or infinite. The same bytes for any number of threads. Bytes are the library's; the offset of nested
/// scales is a mean in the order in which PyTorch adds on one thread, which for more than 32768 blocks
/// is another order than PyTorch's on several.
StoredWeight quantize_weight(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool);

/// The offset that quantize_weight() will give with double_quant: how long a weight's quant_state is depends on it.
float nested_offset(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool);

/// Scales that share one nested scale.
inline constexpr std::int64_t kNestedBlock = 256;

/// The signed dynamic 8-bit map (Dettmers 2015, arXiv:1511.04561) in f32, as the library builds it.
std::array<float, 256> dynamic_map();

/// Blockwise 8-bit codes of `values` by the library's table of 65536 bins.
struct Blockwise8 {
  Tensor codes;   ///< u8 [count]
  Tensor absmax;  ///< f32 [ceil(count / block)]
};
Blockwise8 quantize_blockwise8(std::span<const float> values, std::int64_t block, const std::array<float, 256>& map);

}  // namespace nibble::bnb4
