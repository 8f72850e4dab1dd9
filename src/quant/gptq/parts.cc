// Checks the tensors of a module before anything reads them, and settles what the config leaves open.
#include <algorithm>

#include "quant/common/bit_stream.h"
#include "quant/gptq/gptq.h"

namespace nibble::gptq {
namespace {

/// Reads g_idx: the inputs sorted by group, or nothing when they already are.
void read_groups(const TensorEntry& g_idx, ModuleParts& parts) {
  std::vector<std::int64_t> begin(static_cast<std::size_t>(parts.groups) + 1, 0);
  bool sorted = true, blank = true;
  for (std::int64_t k = 0; k < parts.cols; ++k) {
    const auto group = static_cast<std::int32_t>(word_at(g_idx.view.data(), k));
    if (group < 0 || group >= parts.groups) {
      throw wrong_tensor(g_idx, "entry ", k, " is ", group, ", but there are ", parts.groups, " groups");
    }
    ++begin[static_cast<std::size_t>(group) + 1];
    sorted = sorted && group == k / parts.group;
    blank = blank && group == 0;
  }
  parts.blank_g_idx = blank && parts.groups > 1 && !parts.spec.desc_act;
  if (sorted || parts.blank_g_idx) return;
  for (std::int64_t g = 0; g < parts.groups; ++g) {
    const std::int64_t expected = std::min(parts.group, parts.cols - g * parts.group);
    const std::int64_t found = begin[static_cast<std::size_t>(g) + 1];
    if (found != expected) {
      throw wrong_tensor(g_idx, "puts ", found, " inputs into group ", g, ", which has ", expected,
                         " by the config's group size of ", parts.group);
    }
    begin[static_cast<std::size_t>(g) + 1] += begin[static_cast<std::size_t>(g)];
  }
  parts.order.resize(static_cast<std::size_t>(parts.cols));
  for (std::int64_t k = 0; k < parts.cols; ++k) {
    std::int64_t& place = begin[word_at(g_idx.view.data(), k)];
    parts.order[static_cast<std::size_t>(place++)] = static_cast<std::int32_t>(k);
  }
}

/// Whether all zero points are `field`.
bool all_fields(const View& qzeros, std::int32_t bits, std::uint32_t field) {
  std::uint32_t unit[8] = {};
  for (std::int64_t i = 0; i < kUnit; ++i) put_code(unit, 1, bits, i, field);
  for (std::int64_t i = 0; i < qzeros.count(); ++i) {
    if (word_at(qzeros.data(), i) != unit[i % bits]) return false;
  }
  return qzeros.count() > 0;
}

}  // namespace

ModuleParts Reader::parts(const PackedModule& tensors, LinearSize size) const {
  const std::optional<ModuleSpec> spec = config_.of(tensors.module());
  const TensorEntry &qweight = tensors.need("qweight"), &qzeros = tensors.need("qzeros"),
                    &scales = tensors.need("scales"), &g_idx = tensors.need("g_idx");
  if (!spec) throw wrong_tensor(qweight, "the config's dynamic rules leave this module unquantized");
  ModuleParts parts;
  parts.spec = *spec;
  const std::int32_t bits = spec->bits;
  if (qweight.view.rank() != 2 || qweight.view.dtype() != DType::i32 || qweight.view.empty()) {
    throw wrong_tensor(qweight, "found ", name_of(qweight.view.dtype()), " ", to_string(qweight.view.shape()),
                       ", expected an i32 matrix [inputs * bits / 32, outputs]");
  }
  if (qweight.view.dim(0) % bits != 0) {
    throw wrong_tensor(qweight, qweight.view.dim(0), " rows of words cannot hold whole units of 32 codes of ", bits,
                       " bits");
  }
  parts.cols = qweight.view.dim(0) / bits * kUnit;
  parts.rows = qweight.view.dim(1);
  if (parts.rows * bits % 32 != 0) {
    throw wrong_tensor(qweight, parts.rows, " outputs: their ", bits, "-bit zero points do not fill whole words");
  }
  tensors.check_size(qweight, {parts.rows, parts.cols}, size);
  parts.group = spec->group == -1 ? parts.cols : std::min(spec->group, parts.cols);
  parts.groups = (parts.cols - 1) / parts.group + 1;
  const std::string because =
      cat(parts.cols, " inputs and ", parts.rows, " outputs in ", bits, "-bit qweight, group_size ", spec->group);
  PackedModule::expect(g_idx, DType::i32, {parts.cols}, because);
  PackedModule::expect(qzeros, DType::i32, {parts.groups, parts.rows * bits / 32}, because);
  PackedModule::expect_float(scales, {parts.groups, parts.rows}, because);
  parts.qweight = qweight.view;
  parts.qzeros = qzeros.view;
  parts.scales = scales.view;
  parts.g_idx = g_idx.view;
  read_groups(g_idx, parts);
  return parts;
}

Reader::Verdict Reader::zeros_of(const ModuleParts& parts) const {
  if (parts.spec.sym) {
    const std::uint32_t middle = 1U << (parts.spec.bits - 1);
    for (const Zeros zeros : {Zeros::v1, Zeros::v2}) {
      if (!all_fields(parts.qzeros, parts.spec.bits, zeros == Zeros::v1 ? middle - 1 : middle)) continue;
      const char* against = config_.zeros && config_.zeros != zeros ? ", against " : "";
      return {zeros,
              cat("symmetric zero points prove it", against, *against != 0 ? config_.zeros_from : std::string())};
    }
  }
  if (config_.zeros) return {*config_.zeros, config_.zeros_from};
  return {Zeros::v1, "no checkpoint_format: the format's default"};
}

}  // namespace nibble::gptq
