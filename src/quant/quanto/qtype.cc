#include "quant/quanto/qtype.h"

#include <array>

#include "base/error.h"

namespace nibble::quanto {
namespace {

struct Row {
  QType qtype;
  std::string_view name;
  std::int32_t bits;
  DType codes;
};

constexpr std::array<Row, 6> kRows{{{QType::qint2, "qint2", 2, DType::u8},
                                    {QType::qint4, "qint4", 4, DType::u8},
                                    {QType::qint8, "qint8", 8, DType::i8},
                                    {QType::qfloat8_e4m3fn, "qfloat8_e4m3fn", 8, DType::f8_e4m3fn},
                                    {QType::qfloat8_e5m2, "qfloat8_e5m2", 8, DType::f8_e5m2},
                                    {QType::qfloat8_e4m3fnuz, "qfloat8_e4m3fnuz", 8, DType::f8_e4m3fnuz}}};

constexpr std::array<std::string_view, 4> kOptimizers{"auto", "absmax", "max", "hqq"};

const Row& row(QType qtype) { return kRows[static_cast<std::size_t>(qtype)]; }

std::int64_t product(const Shape& shape, std::size_t from) {
  std::int64_t out = 1;
  for (std::size_t i = from; i < shape.size(); ++i) out *= shape[i];
  return out;
}

/// The shape of scales without groups: [N, 1, ...], or a scalar for one row of an 8-bit type.
Shape row_scales(const WeightSpec& spec, const Shape& weight, const Extent& extent) {
  if (is_packed(spec.qtype) && extent.rows == 1) {
    Shape all = weight;
    return all;
  }
  if (extent.rows == 1) return {};
  Shape shape(weight.size(), 1);
  shape[0] = weight[0];
  return shape;
}

}  // namespace

std::string_view name_of(QType qtype) { return row(qtype).name; }
std::int32_t bits_of(QType qtype) { return row(qtype).bits; }
DType code_dtype(QType qtype) { return row(qtype).codes; }

std::optional<QType> qtype_from_name(std::string_view name) {
  if (name == "float8" || name == "qfloat8") return QType::qfloat8_e4m3fn;
  for (const Row& r : kRows) {
    if (r.name == name || r.name.substr(1) == name) return r.qtype;
  }
  return std::nullopt;
}

std::int64_t group_size_for(std::int64_t in_features, std::int64_t most) {
  if (in_features <= most) return 0;
  std::int64_t group = most;
  while (in_features % group != 0 && group > 32) group -= 32;
  return in_features % group == 0 ? group : 0;
}

std::optional<Optimizer> optimizer_from_name(std::string_view name) {
  for (std::size_t i = 0; i < kOptimizers.size(); ++i) {
    if (kOptimizers[i] == name) return static_cast<Optimizer>(i);
  }
  return std::nullopt;
}

std::string_view name_of(Optimizer optimizer) { return kOptimizers[static_cast<std::size_t>(optimizer)]; }

void check_spec(const WeightSpec& spec) {
  const bool packed = is_packed(spec.qtype);
  if (packed ? spec.optimizer == Optimizer::absmax
             : spec.optimizer == Optimizer::max || spec.optimizer == Optimizer::hqq) {
    throw bad_input("optimizer ", name_of(spec.optimizer), " does not serve ", name_of(spec.qtype),
                    packed ? " (max and hqq do)" : " (absmax does)");
  }
  if (spec.group_size != 32 && spec.group_size != 64 && spec.group_size != 96 && spec.group_size != 128) {
    throw bad_input("group size ", spec.group_size, " (32, 64, 96 and 128 are supported)");
  }
  if (spec.zero_point && !packed) throw bad_input(name_of(spec.qtype), " has no zero point");
}

Extent extent_of(const WeightSpec& spec, const Shape& weight) {
  check(!weight.empty(), "quanto: a weight has a dimension");
  Extent extent{.rows = weight[0], .cols = product(weight, 1), .group = 0, .grouped = false};
  extent.group = extent.cols;
  if (!is_packed(spec.qtype)) return extent;
  const std::int64_t group = group_size_for(extent.cols, spec.group_size);
  extent.grouped = group != 0;
  if (extent.grouped) extent.group = group;
  // The library reduces a single row over its dimension of one: every weight gets a scale of its own.
  if (!extent.grouped && extent.rows == 1) extent.group = extent.cols == 0 ? 0 : 1;
  return extent;
}

std::vector<TensorPlan> stored_parts(const std::string& module, const WeightSpec& spec, const Shape& weight,
                                     DType dtype) {
  const Extent extent = extent_of(spec, weight);
  const std::string prefix = module + ".weight.";
  if (!is_packed(spec.qtype)) {
    return {{prefix + "_data", code_dtype(spec.qtype), weight},
            {prefix + "_scale", dtype, row_scales(spec, weight, extent)}};
  }
  const std::int64_t per = 8 / bits_of(spec.qtype);
  Shape data = extent.grouped ? Shape{extent.groups(), extent.group} : weight;
  data[0] = (data[0] + per - 1) / per;
  const Shape scales = extent.grouped ? Shape{extent.groups(), 1} : row_scales(spec, weight, extent);
  return {{prefix + "_data._data", DType::u8, data},
          {prefix + "_scale", dtype, scales},
          {prefix + "_shift", spec.zero_point ? DType::u8 : dtype, scales}};
}

bool is_tinygemm(QType qtype, DType dtype, const Extent& extent, std::size_t rank) {
  return qtype == QType::qint4 && dtype == DType::bf16 && extent.grouped && extent.group == 128 && rank == 2 &&
         extent.rows % 16 == 0;
}

}  // namespace nibble::quanto
