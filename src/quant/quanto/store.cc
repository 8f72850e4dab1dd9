// From a loaded linear back to the tensors of its checkpoint.
#include <algorithm>

#include "layout/affine/affine.h"
#include "layout/rows8/rows8.h"
#include "quant/quanto/packed.h"
#include "quant/quanto/reader.h"

namespace nibble::quanto {
namespace {

std::optional<QType> qtype_of(const QTensor& w) {
  if (w.layout == &rows8::kLayout) {
    for (const QType qtype : {QType::qint8, QType::qfloat8_e4m3fn, QType::qfloat8_e5m2, QType::qfloat8_e4m3fnuz}) {
      if (code_dtype(qtype) == w.part[0].dtype()) return qtype;
    }
  }
  if (w.layout == &affine::kLayout && w.bits == 4) return QType::qint4;
  if (w.layout == &affine::kLayout && w.bits == 2) return QType::qint2;
  return std::nullopt;
}

/// The stored parts of a weight that no Quanto checkpoint was read for.
Record record_for(const std::string& module, const QTensor& w, QType qtype) {
  Record record;
  WeightSpec spec{.qtype = qtype};
  spec.zero_point = is_packed(qtype) && affine::offset_kind(w) == affine::Offset::zero_point;
  record.grouped = w.group != w.cols && w.rows * w.cols != w.group;
  if (record.grouped) spec.group_size = w.group;
  const Extent extent = extent_of(spec, {w.rows, w.cols});
  if (is_packed(qtype) && (extent.group != w.group || extent.grouped != record.grouped)) {
    throw bad_input(module, ": Quanto cannot store groups of ", w.group, " for ", w.cols, " inputs");
  }
  record.weight = stored_parts(module, spec, {w.rows, w.cols}, w.dtype);
  return record;
}

Tensor floats(const TensorPlan& plan, const std::vector<float>& values) {
  Tensor out(plan.shape, plan.dtype);
  check(out.count() == static_cast<std::int64_t>(values.size()), "quanto store: size of a part");
  for (std::int64_t i = 0; i < out.count(); ++i) {
    store_from_f32(plan.dtype, out.data(), i, values[static_cast<std::size_t>(i)]);
  }
  return out;
}

void store_bytes(const Record& record, const QTensor& w, std::vector<StoredTensor>& out) {
  Tensor data(record.weight[0].shape, record.weight[0].dtype);
  std::copy_n(w.part[0].data(), w.part[0].size_bytes(), data.data());
  out.push_back({record.weight[0].name, data});
  std::vector<float> scale = w.part[1].to_f32();
  if (count_of(record.weight[1].shape) == 1) scale.resize(1);  // one scale served all rows
  out.push_back({record.weight[1].name, floats(record.weight[1], scale)});
}

void store_packed(const Record& record, const QTensor& w, std::vector<StoredTensor>& out, Exec& exec) {
  const affine::Plain plain = affine::unpack(w, exec);
  const std::int64_t width = record.grouped ? w.group : w.cols;
  const std::int64_t units = width == 0 ? 0 : w.rows * w.cols / width, height = packed_rows(units, w.bits);
  Tensor data(record.weight[0].shape, DType::u8);
  check(data.count() == height * width, "quanto store: size of the codes");
  auto* packed = reinterpret_cast<std::uint8_t*>(data.data());
  exec.pool.run(height, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::int32_t shift = 0;
      for (std::int64_t unit = row; unit < units; unit += height, shift += w.bits) {
        or_codes(plain.codes.data() + unit * width, width, shift, packed + row * width);
      }
    }
  });
  out.push_back({record.weight[0].name, data});
  out.push_back({record.weight[1].name, floats(record.weight[1], plain.scale)});
  out.push_back({record.weight[2].name, floats(record.weight[2], plain.offset)});
}

}  // namespace

std::vector<StoredTensor> store(const std::string& module, const LinearWeights& linear, Exec& exec) {
  const QTensor& w = linear.weight;
  const std::optional<QType> qtype = qtype_of(w);
  if (!qtype) throw bad_input(module, ": Quanto has no type for this weight");
  const auto* read = dynamic_cast<const Record*>(linear.record.get());
  const Record record = read != nullptr ? *read : record_for(module, w, *qtype);
  std::vector<StoredTensor> out;
  if (!record.weight.empty()) {
    if (is_packed(*qtype)) {
      store_packed(record, w, out, exec);
    } else {
      store_bytes(record, w, out);
    }
  }
  for (const auto& [name, view] : record.others) out.push_back({name, Tensor(view)});
  if (read != nullptr) return out;
  if (linear.bias) out.push_back({module + ".bias", Tensor(*linear.bias)});
  const ActivationQuant scales = linear.activation.value_or(ActivationQuant{});
  out.push_back({module + ".input_scale", floats({"", w.dtype, {}}, {scales.input_scale})});
  out.push_back({module + ".output_scale", floats({"", w.dtype, {}}, {scales.output_scale})});
  return out;
}

}  // namespace nibble::quanto
