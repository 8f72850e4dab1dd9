#include "quant/quanto/reader.h"

#include <cmath>
#include <filesystem>

#include "layout/affine/affine.h"
#include "layout/dense/dense.h"
#include "layout/rows8/rows8.h"
#include "quant/quanto/packed.h"

namespace nibble::quanto {
namespace {

bool is_value(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

Error wrong(const TensorEntry& entry, const std::string& reason) {
  return bad_input(entry.file.string(), ": tensor ", printable(entry.name), ": ", reason);
}

Error wrong_shape(const TensorEntry& entry, const std::string& expected) {
  return wrong(entry,
               cat("expected ", expected, ", found ", name_of(entry.view.dtype()), " ", to_string(entry.view.shape())));
}

void need_value(const TensorEntry& entry) {
  if (!is_value(entry.view.dtype())) throw wrong_shape(entry, "f32, f16 or bf16");
}

std::string text(LinearSize size) { return to_string({size.rows, size.cols}); }

/// Codes of a float8 type that safetensors has no name for are stored as plain bytes.
View as_codes(const View& view, DType codes) {
  return view.dtype() == DType::u8 && codes == DType::f8_e4m3fnuz ? view.cast(codes) : view;
}

/// The codes of all rows, unpacked.
std::vector<std::uint8_t> unpack_all(const ModuleParts& parts, Exec& exec) {
  const Extent& extent = parts.extent;
  const std::int64_t width = extent.grouped ? extent.group : extent.cols;
  const std::int64_t units = width == 0 ? 0 : extent.rows * (extent.cols / width);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(extent.rows * extent.cols));
  const auto* packed = reinterpret_cast<const std::uint8_t*>(parts.data.data());
  exec.pool.run(units, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t unit = begin; unit < end; ++unit) {
      unpack_row(packed, units, width, bits_of(parts.spec.qtype), unit, codes.data() + unit * width);
    }
  });
  return codes;
}

}  // namespace

Reader::Reader(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {
  const std::filesystem::path file = checkpoint_->folder() / kMapFile;
  const std::optional<Json> map = checkpoint_->json_file(std::string(kMapFile));
  if (!map) throw bad_input(file.string(), ": no such file");
  map_ = parse_map(*map, file.string());
  for (const auto& [module, entry] : map_) {
    if (entry.weights && frozen(module)) parts(module, {});
  }
}

const MapEntry* Reader::find(std::string_view module) const {
  const auto found = map_.find(module);
  return found == map_.end() || !found->second.weights ? nullptr : &found->second;
}

bool Reader::frozen(std::string_view module) const { return checkpoint_->find(cat(module, ".weight")) == nullptr; }

const TensorEntry& Reader::entry(const std::string& tensor) const {
  const TensorEntry* found = checkpoint_->find(tensor);
  if (found == nullptr) {
    throw bad_input(checkpoint_->folder().string(), ": tensor ", printable(tensor), " is missing, which ", kMapFile,
                    " asks for");
  }
  return *found;
}

std::vector<std::string> Reader::modules() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : map_) {
    if (entry.weights) names.push_back(name);
  }
  return names;
}

std::string Reader::describe(std::string_view module) const {
  const MapEntry* found = find(module);
  if (found == nullptr) return {};
  std::string out(name_of(*found->weights));
  if (!frozen(module)) {
    out += ", not frozen";
  } else if (is_packed(*found->weights)) {
    const ModuleParts p = parts(std::string(module), {});
    out += p.extent.grouped ? cat(", group_size ", p.extent.group) : ", per row";
    out += p.shift.dtype() == DType::u8 ? ", zero point" : ", shift";
  } else {
    out += ", per row";
  }
  if (found->activations) out += cat(", activations ", name_of(*found->activations));
  return out;
}

LinearSize Reader::size(std::string_view module) const {
  const std::string name(module);
  if (frozen(module)) {
    const Extent extent = parts(name, {}).extent;
    return {extent.rows, extent.cols};
  }
  const View& plain = entry(name + ".weight").view;
  if (plain.rank() < 2 || plain.dim(0) == 0) return {1, plain.count()};
  return {plain.dim(0), plain.count() / plain.dim(0)};
}

ModuleParts Reader::parts(const std::string& module, LinearSize size) const {
  const MapEntry* found = find(module);
  check(found != nullptr, "quanto: parts of a module that is not quantized");
  return is_packed(*found->weights) ? packed_parts(module, *found->weights, size)
                                    : byte_parts(module, *found->weights, size);
}

ModuleParts Reader::byte_parts(const std::string& module, QType qtype, LinearSize size) const {
  const TensorEntry& data = entry(module + ".weight._data");
  const TensorEntry& scale = entry(module + ".weight._scale");
  ModuleParts parts{.spec = {.qtype = qtype},
                    .extent = {},
                    .data = as_codes(data.view, code_dtype(qtype)),
                    .scale = scale.view,
                    .shift = {}};
  if (parts.data.rank() < 2 || parts.data.dtype() != code_dtype(qtype)) {
    throw wrong_shape(data, cat(name_of(code_dtype(qtype)), " codes of a matrix"));
  }
  need_value(scale);
  parts.extent = extent_of(parts.spec, parts.data.shape());
  const LinearSize found{parts.extent.rows, parts.extent.cols};
  if (size.rows != 0 && (found.rows != size.rows || found.cols != size.cols)) {
    throw wrong_shape(data, text(size));
  }
  if (scale.view.count() != found.rows && scale.view.count() != 1) throw wrong_shape(scale, cat(found.rows, " scales"));
  return parts;
}

ModuleParts Reader::packed_parts(const std::string& module, QType qtype, LinearSize size) const {
  const TensorEntry& data = entry(module + ".weight._data._data");
  const TensorEntry& scale = entry(module + ".weight._scale");
  const TensorEntry& shift = entry(module + ".weight._shift");
  if (data.view.dtype() != DType::u8 || data.view.rank() < 2) throw wrong_shape(data, "u8 codes of a matrix");
  need_value(scale);
  if (shift.view.dtype() != DType::u8) need_value(shift);
  if (shift.view.count() != scale.view.count()) throw wrong_shape(shift, cat(scale.view.count(), " shifts"));
  const std::int64_t height = data.view.dim(0), scales = scale.view.count();
  const std::int64_t width = height == 0 ? 0 : data.view.count() / height;
  const std::int64_t per = 8 / bits_of(qtype);
  // One row without groups has a scale for each of its weights; else each row of codes has one.
  const bool single =
      height == 1 && scales == width && width > 1 && size.rows <= 1 && scale.view.shape() == data.view.shape();
  const std::int64_t units = single ? 1 : scales;
  if (packed_rows(units, bits_of(qtype)) != height) {
    throw wrong_shape(data, cat("codes for ", units, " scales in ", (units + per - 1) / per, " rows"));
  }
  Extent extent{.rows = units, .cols = width, .group = single ? 1 : width, .grouped = false};
  if (size.rows != 0) {
    const bool whole = size.rows == units && size.cols == width;
    const bool groups = width != 0 && !single && size.cols % width == 0 && size.rows == units / (size.cols / width) &&
                        units % (size.cols / width) == 0;
    if (!whole && !groups) throw wrong_shape(data, cat("codes of a weight ", text(size)));
    extent = {.rows = size.rows, .cols = size.cols, .group = extent.group, .grouped = !whole};
  } else {
    extent.grouped = scale.view.rank() == 2 && data.view.rank() == 2 &&
                     (width == 128 || width == 96 || width == 64 || width == 32) && group_size_for(width) == 0 &&
                     !single;
  }
  return {.spec = {.qtype = qtype, .zero_point = shift.view.dtype() == DType::u8},
          .extent = extent,
          .data = data.view,
          .scale = scale.view,
          .shift = shift.view};
}

QTensor Reader::to_layout(const ModuleParts& parts, std::shared_ptr<const void> owner, Exec& exec) const {
  const Extent& extent = parts.extent;
  if (!is_packed(parts.spec.qtype)) {
    return rows8::make(parts.data.reshaped({extent.rows, extent.cols}), parts.scale, parts.scale.dtype(),
                       std::move(owner));
  }
  affine::Plain plain{.rows = extent.rows,
                      .cols = extent.cols,
                      .group = std::max<std::int64_t>(1, extent.group),
                      .bits = bits_of(parts.spec.qtype),
                      .offset_kind = parts.spec.zero_point ? affine::Offset::zero_point : affine::Offset::shift,
                      .dtype = parts.scale.dtype(),
                      .codes = unpack_all(parts, exec),
                      .scale = parts.scale.to_f32(),
                      .offset = parts.shift.to_f32()};
  return affine::pack(plain, exec);
}

QTensor Reader::unfrozen(const std::string& module, QType qtype, LinearSize size, Exec& exec) const {
  const TensorEntry& plain = entry(module + ".weight");
  if (plain.view.rank() < 2) throw wrong_shape(plain, "a matrix");
  need_value(plain);
  const WeightSpec spec{.qtype = qtype};
  ModuleParts parts{.spec = spec, .extent = extent_of(spec, plain.view.shape()), .data = {}, .scale = {}, .shift = {}};
  if (size.rows != 0 && (parts.extent.rows != size.rows || parts.extent.cols != size.cols)) {
    throw wrong_shape(plain, text(size));
  }
  const StoredWeight stored =
      quantize_weight(spec, plain.view, cat(plain.file.string(), ": tensor ", plain.name), exec.pool);
  parts.data = stored.data.view();
  parts.scale = stored.scale.view();
  parts.shift = stored.shift.view();
  return to_layout(parts, std::make_shared<StoredWeight>(stored), exec);
}

QTensor Reader::weight_of(const std::string& module, QType qtype, LinearSize size, Exec& exec) const {
  if (!frozen(module)) return unfrozen(module, qtype, size, exec);
  return to_layout(parts(module, size), checkpoint_->owner(), exec);
}

std::optional<View> Reader::bias(const std::string& module, std::int64_t rows) const {
  const TensorEntry* found = checkpoint_->find(module + ".bias");
  if (found == nullptr) return std::nullopt;
  need_value(*found);
  if (found->view.rank() != 1 || found->view.count() != rows) throw wrong_shape(*found, cat(rows, " values"));
  return found->view;
}

float Reader::scale_of(const std::string& tensor) const {
  const TensorEntry* found = checkpoint_->find(tensor);
  if (found == nullptr) return 1;
  need_value(*found);
  if (found->view.count() != 1) throw wrong_shape(*found, "one value");
  const float scale = found->view.at(0);
  if (!(scale > 0) || !std::isfinite(scale)) throw wrong(*found, cat("scale ", scale, " is not a positive number"));
  return scale;
}

std::optional<ActivationQuant> Reader::activation(const std::string& module, const MapEntry& entry) const {
  if (!entry.activations) return std::nullopt;
  return ActivationQuant{.qtype = code_dtype(*entry.activations),
                         .input_scale = scale_of(module + ".input_scale"),
                         .output_scale = scale_of(module + ".output_scale"),
                         .quantize_output = false};
}

std::shared_ptr<const Record> Reader::record(const std::string& module, LinearSize size) const {
  auto record = std::make_shared<Record>();
  record->owner = checkpoint_->owner();
  if (frozen(module)) {
    for (const char* part : {".weight._data", ".weight._data._data", ".weight._scale", ".weight._shift"}) {
      const TensorEntry* found = checkpoint_->find(module + part);
      if (found != nullptr) record->weight.push_back({found->name, found->view.dtype(), found->view.shape()});
    }
    record->grouped = parts(module, size).extent.grouped;
  }
  for (const char* other : {".weight", ".bias", ".input_scale", ".output_scale"}) {
    const TensorEntry* found = checkpoint_->find(module + other);
    if (found != nullptr) record->others.emplace_back(found->name, found->view);
  }
  return record;
}

LinearWeights Reader::load(const std::string& module, LinearSize size, Exec& exec) const {
  const MapEntry* found = find(module);
  check(found != nullptr, "quanto: load of a module that is not quantized");
  LinearWeights linear;
  linear.weight = weight_of(module, *found->weights, size, exec);
  const std::int64_t rows = size.rows != 0 ? size.rows : linear.weight.rows;
  const bool exact = size.rows != 0 || !is_packed(*found->weights);
  if (exact) {
    linear.bias = bias(module, rows);
  } else if (const TensorEntry* plain = checkpoint_->find(module + ".bias")) {
    linear.bias = plain->view;
  }
  linear.activation = activation(module, *found);
  linear.record = record(module, size);
  return linear;
}

}  // namespace nibble::quanto
