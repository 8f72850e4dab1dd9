// Quanto's quantized types and how their tensors are named and shaped in a checkpoint (see README.md).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "checkpoint/writer.h"
#include "tensor/view.h"

namespace nibble::quanto {

enum class QType : std::uint8_t { qint2, qint4, qint8, qfloat8_e4m3fn, qfloat8_e5m2, qfloat8_e4m3fnuz };

/// "qint4", "qfloat8_e4m3fn": the name in quanto_qmap.json.
std::string_view name_of(QType qtype);
/// From that name, with or without the q, and from "float8" / "qfloat8" (e4m3fn).
std::optional<QType> qtype_from_name(std::string_view name);

std::int32_t bits_of(QType qtype);
/// qint2 and qint4: packed codes with scale and shift. The others: one byte per weight and a scale.
inline bool is_packed(QType qtype) { return bits_of(qtype) < 8; }
/// u8 for packed types, else i8 or the float8 type.
DType code_dtype(QType qtype);

/// The library's group size for packed types and a weight of `in_features` inputs: the largest of `most`, `most` - 32,
/// ... 32 that divides them, when they are more than `most`; else 0, a scale per row.
std::int64_t group_size_for(std::int64_t in_features, std::int64_t most = 128);

/// Which error the scale and shift of a weight minimise. `automatic`: absmax for 8 bits, max for 4 and 2.
enum class Optimizer : std::uint8_t { automatic, absmax, max, hqq };
std::optional<Optimizer> optimizer_from_name(std::string_view name);
std::string_view name_of(Optimizer optimizer);

/// How one weight is quantized.
struct WeightSpec {
  QType qtype = QType::qint8;
  Optimizer optimizer = Optimizer::automatic;
  std::int64_t group_size = 128;  ///< the largest tried: 128 is the library's; 32, 64 or 96 only nibble reads back
  bool zero_point = false;        ///< an integer shift (packed types)
  bool exact_shift = false;  ///< keep the shifts that the library's TinyGemm class would round (see tinygemm_shift)
};

/// Throws Error(bad_input) when optimizer, group size and qtype do not go together.
void check_spec(const WeightSpec& spec);

/// The sizes of a quantized weight: [rows, cols] is the weight [N, ...] flattened, group the inputs of one scale.
struct Extent {
  std::int64_t rows = 0, cols = 0;
  std::int64_t group = 0;  ///< cols when a row has one scale; 1 for a packed weight of one ungrouped row
  bool grouped = false;    ///< packed tensors are [groups, group] and not shaped like the weight
  std::int64_t groups() const { return group == 0 ? 0 : rows * (cols / group); }
};
Extent extent_of(const WeightSpec& spec, const Shape& weight);

/// The tensors that replace `module`.weight, in name order: weight._data (._data), weight._scale, weight._shift.
std::vector<TensorPlan> stored_parts(const std::string& module, const WeightSpec& spec, const Shape& weight,
                                     DType dtype);

/// Whether the library on a CPU keeps this weight in its TinyGemm class, whose saved shifts are rounded.
bool is_tinygemm(QType qtype, DType dtype, const Extent& extent, std::size_t rank);

}  // namespace nibble::quanto
