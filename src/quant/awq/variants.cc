// From one AWQ variant to another. gemm and gemv hold integer zero points, gemv_fast and llm-awq hold -scale * z
// rounded to f16: that way loses the last bit of some values, and back the integers are found again.
#include <array>
#include <cmath>

#include "base/error.h"
#include "quant/awq/awq.h"

namespace nibble::awq {
namespace {

constexpr std::array<std::string_view, 4> kNames{"gemm", "gemv", "gemv_fast", "llm-awq"};

bool is_scaled(Variant variant) { return variant == Variant::gemv_fast || variant == Variant::llm_awq; }

void check_sizes(const std::string& module, const QTensor& w, Variant variant) {
  const auto refuse = [&](const auto&... why) {
    throw bad_input(printable(module), ": ", name_of(variant), " cannot hold it: ", why...);
  };
  if (variant == Variant::gemm) {
    if (w.rows % 8 != 0) refuse(w.rows, " outputs are no multiple of 8");
    return;
  }
  if (w.group < 128 && w.group != 64 && w.group != 32) refuse("groups of ", w.group, " (32, 64, and 128 or more)");
  if (w.cols % 8 != 0) refuse(w.cols, " inputs are no multiple of 8");
  if (!is_scaled(variant)) return;
  if (w.cols % 64 != 0 || w.rows % 4 != 0) refuse(w.rows, " outputs (by 4) and ", w.cols, " inputs (by 64)");
  if (w.part[1].dtype() != DType::f16) refuse("scales that are not float16");
}

/// f16(scale * z), the number that a scaled variant stores with the other sign.
float scaled_zero(float scale, float zero) { return round_to(DType::f16, scale * zero); }

Tensor zeros_to_shifts(const std::string& module, const QTensor& w) {
  Tensor out(w.part[2].shape(), DType::f16);
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const float shift = scaled_zero(w.part[1].at(i), w.part[2].at(i));
    if (!std::isfinite(shift)) throw bad_input(printable(module), ": scale * zero point is no float16");
    store_from_f32(DType::f16, out.data(), i, shift);
  }
  return out;
}

Tensor shifts_to_zeros(const std::string& module, const QTensor& w) {
  Tensor out(w.part[2].shape(), DType::f16);
  for (std::int64_t i = 0; i < out.count(); ++i) {
    const float scale = w.part[1].at(i), shift = w.part[2].at(i);
    const float zero = scale == 0 ? 0 : std::rint(shift / scale);
    if (!(zero >= 0 && zero <= 15) || scaled_zero(scale, zero) != shift) {
      throw bad_input(printable(module), ": the stored zero point ", -shift, " is no multiple of its scale ", scale);
    }
    store_from_f32(DType::f16, out.data(), i, zero);
  }
  return out;
}

/// The weight with other offsets; codes and scales stay where they are.
QTensor with_offsets(const QTensor& w, const Tensor& offsets, affine::Offset kind) {
  struct Memory {
    std::shared_ptr<const void> rest;
    Tensor offsets, kind;
  };
  auto memory = std::make_shared<Memory>(Memory{w.owner, offsets, Tensor({1}, DType::u8)});
  memory->kind.data()[0] = static_cast<std::byte>(kind);
  QTensor out = w;
  out.part[2] = memory->offsets.view();
  out.part[3] = memory->kind.view();
  out.owner = std::move(memory);
  return out;
}

LinearWeights rewrite(const std::string& module, const LinearWeights& linear, std::string_view name) {
  const auto* record = dynamic_cast<const Record*>(linear.record.get());
  check(record != nullptr, "awq: not an AWQ weight");
  const Variant variant = variant_named(name);
  LinearWeights out = linear;
  if (record->variant == variant) return out;
  check_sizes(module, linear.weight, variant);
  if (is_scaled(variant) && !is_scaled(record->variant)) {
    out.weight = with_offsets(linear.weight, zeros_to_shifts(module, linear.weight), affine::Offset::shift);
  } else if (!is_scaled(variant) && is_scaled(record->variant)) {
    out.weight = with_offsets(linear.weight, shifts_to_zeros(module, linear.weight), affine::Offset::zero_point);
  }
  auto changed = std::make_shared<Record>();
  changed->variant = variant;
  out.record = std::move(changed);
  return out;
}

void edit_config(Json& config, std::string_view variant, const QTensor& example) {
  if (config.get("quant_method") == nullptr) config.set("quant_method", "awq");
  if (config.get("bits") == nullptr && config.get("w_bit") == nullptr) config.set("bits", 4);
  if (config.get("group_size") == nullptr && config.get("q_group_size") == nullptr)
    config.set("group_size", example.group);
  if (config.get("zero_point") == nullptr) config.set("zero_point", true);
  config.set("version", variant);
  for (const char* key : {"format", "checkpoint_format"}) {
    if (config.get(key) != nullptr) config.set(key, variant);
  }
  if (variant == "llm-awq") {
    config.set("backend", variant);
  } else if (const Json* backend = config.get("backend");
             backend != nullptr && backend->is_string() && backend->string("backend") == "llm-awq") {
    config.erase("backend");
  }
}

}  // namespace

constexpr SchemeVariants kVariants{kNames, &rewrite, &edit_config};

}  // namespace nibble::awq
