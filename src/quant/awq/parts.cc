// Checks the tensors of a module before anything reads them.
#include <algorithm>

#include "quant/awq/awq.h"

namespace nibble::awq {
namespace {

constexpr DType qweight_dtype(Variant variant) {
  return variant == Variant::gemm || variant == Variant::gemv ? DType::i32 : DType::i16;
}

/// Sizes from qweight; throws when it is no matrix of the variant.
void read_sizes(const TensorEntry& qweight, ModuleParts& parts) {
  const View& view = qweight.view;
  const DType dtype = qweight_dtype(parts.variant);
  if (view.rank() != 2 || view.dtype() != dtype || view.empty()) {
    throw wrong_tensor(qweight, "found ", nibble::name_of(view.dtype()), " ", to_string(view.shape()),
                       ", expected a matrix of ", nibble::name_of(dtype), " (version ", name_of(parts.variant), ")");
  }
  switch (parts.variant) {
    case Variant::gemm: parts.cols = view.dim(0), parts.rows = view.dim(1) * 8; break;
    case Variant::gemv: parts.cols = view.dim(1) * 8, parts.rows = view.dim(0); break;
    case Variant::gemv_fast:
    case Variant::llm_awq: parts.cols = view.dim(1), parts.rows = view.dim(0) * 4; break;
  }
  if (dtype == DType::i16 && parts.cols % 64 != 0) {
    throw wrong_tensor(qweight, parts.cols, " inputs are no multiple of 64 (version ", name_of(parts.variant), ")");
  }
}

/// llm-awq without a config: rows of scales that are not all zero, which must come first.
std::int64_t group_of_scales(const TensorEntry& scales, std::int64_t cols) {
  if (scales.view.rank() != 2 || scales.view.dtype() != DType::f16) {
    throw wrong_tensor(scales, "expected an f16 matrix [groups, outputs]");
  }
  std::int64_t groups = 0;
  for (std::int64_t g = 0; g < scales.view.dim(0); ++g) {
    const View row = scales.view.rows(g, g + 1);
    const auto bytes = row.bytes();
    if (std::any_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte != std::byte{0}; })) groups = g + 1;
  }
  if (groups == 0 || cols % groups != 0) {
    throw wrong_tensor(scales, groups, " rows that are not zero do not divide ", cols, " inputs into groups");
  }
  return cols / groups;
}

void check_group(const TensorEntry& qweight, const ModuleParts& parts) {
  if (parts.cols % parts.group != 0) {
    throw wrong_tensor(qweight, parts.cols, " inputs are no multiple of the group size ", parts.group);
  }
  if (parts.variant != Variant::gemm && parts.group < 128 && parts.group != 64 && parts.group != 32) {
    throw wrong_tensor(qweight, "version ", name_of(parts.variant), " has no groups of ", parts.group,
                       " (32, 64, and 128 or more)");
  }
}

}  // namespace

std::int64_t zeros_width(std::int64_t groups, std::int64_t group) {
  const std::int64_t words = (groups + 7) / 8, unit = group >= 128 ? 1 : 128 / group;
  return (words + unit - 1) / unit * unit;
}

ModuleParts Reader::parts(const PackedModule& tensors, LinearSize size) const {
  ModuleParts parts;
  parts.variant = config_.variant;
  const TensorEntry &qweight = tensors.need("qweight"), &scales = tensors.need("scales"),
                    &qzeros = tensors.need(parts.variant == Variant::llm_awq ? "scaled_zeros" : "qzeros");
  read_sizes(qweight, parts);
  tensors.check_size(qweight, {parts.rows, parts.cols}, size);
  const std::int64_t stated = config_.group ? *config_.group : group_of_scales(scales, parts.cols);
  parts.group = stated == -1 ? parts.cols : stated;
  check_group(qweight, parts);
  parts.groups = parts.cols / parts.group;
  const std::int64_t width = zeros_width(parts.groups, parts.group);
  parts.stored_groups = parts.variant == Variant::gemm ? parts.groups : width * 8;
  const std::string because = cat(parts.cols, " inputs and ", parts.rows, " outputs in qweight, version ",
                                  name_of(parts.variant), ", group_size ", stated);
  switch (parts.variant) {
    case Variant::gemm:
      PackedModule::expect(qzeros, DType::i32, {parts.groups, parts.rows / 8}, because);
      PackedModule::expect_float(scales, {parts.groups, parts.rows}, because);
      break;
    case Variant::gemv:
      PackedModule::expect(qzeros, DType::i32, {parts.rows, width}, because);
      PackedModule::expect_float(scales, {parts.rows, parts.stored_groups}, because);
      break;
    case Variant::gemv_fast:
    case Variant::llm_awq:
      PackedModule::expect(qzeros, DType::f16, {parts.stored_groups, parts.rows}, because);
      PackedModule::expect(scales, DType::f16, {parts.stored_groups, parts.rows}, because);
      break;
  }
  parts.qweight = qweight.view;
  parts.qzeros = qzeros.view;
  parts.scales = scales.view;
  return parts;
}

}  // namespace nibble::awq
