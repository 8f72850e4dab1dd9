#include "quant/awq/quantizer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"

namespace nibble::awq {
namespace {

bool is_fast(Variant variant) { return variant == Variant::gemv_fast || variant == Variant::llm_awq; }

void check_shape(const std::string& module, const Shape& weight, const QuantizerConfig& config) {
  const auto refuse = [&](const auto&... why) { throw bad_input(printable(module), ": ", why..., "; exclude it"); };
  if (weight.size() != 2) refuse("a weight of ", to_string(weight), " is no matrix");
  const std::int64_t rows = weight[0], cols = weight[1], group = config.options.inputs_per_group(cols);
  if (cols % group != 0) {
    throw bad_input(printable(module), ": groups of ", group, " do not divide its ", cols,
                    " inputs; choose another group size or exclude it");
  }
  if (rows % 8 != 0 || cols % 8 != 0) {
    refuse("a weight of ", to_string(weight),
           " cannot be stored as AWQ, which packs multiples of 8 outputs and inputs");
  }
  if (config.variant == Variant::gemm) return;
  if (group < 128 && group != 64 && group != 32) {
    throw bad_input(printable(module), ": ", name_of(config.variant), " has groups of 32, 64, and 128 or more, not of ",
                    group);
  }
  if (is_fast(config.variant) && cols % 64 != 0)
    refuse(name_of(config.variant), " packs multiples of 64 inputs, not ", cols);
}

/// "self_attn.q_proj" of "model.layers.3.self_attn.q_proj": what libraries compare their lists with.
std::string inside_block(const std::string& module) {
  std::size_t begin = 0;
  while (begin < module.size()) {
    const std::size_t end = std::min(module.find('.', begin), module.size());
    const std::string_view part = std::string_view(module).substr(begin, end - begin);
    const bool number =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number && end < module.size()) return module.substr(end + 1);
    begin = end + 1;
  }
  return module;
}

/// Modules that stay in floats, by their names inside a block where no block has a quantized one of that name.
Json not_converted(const SelectionResult& selected, const std::vector<std::string>& never) {
  std::set<std::string> quantized, names;
  for (const SelectedModule& module : selected.modules) quantized.insert(inside_block(module.name));
  for (const std::string& module : selected.kept) {
    const std::string inside = inside_block(module);
    names.insert(quantized.contains(inside) ? module : inside);
  }
  for (const std::string& module : never) names.insert(inside_block(module));
  if (names.empty()) return {};
  Json::Array list;
  for (const std::string& name : names) list.emplace_back(name);
  return list;
}

}  // namespace

SolvedModule Quantizer::round(const std::string& module, AwqWeight weight, std::int64_t cols,
                              std::span<const float> group_grams, const Scales& scales, Exec& exec) const {
  const std::int64_t group = config_.options.inputs_per_group(cols);
  std::vector<float> clip;
  if (!group_grams.empty()) clip = awq_clip(weight, cols, group, group_grams, exec);
  return stored(module, awq_round(weight, cols, group, clip, AwqArithmetic::f32, exec.pool), weight.rows, cols, scales,
                exec);
}

SolvedModule Quantizer::stored(const std::string& module, const GridCodes& codes, std::int64_t rows, std::int64_t cols,
                               const Scales& scales, Exec& exec) const {
  if (!std::all_of(codes.scale.begin(), codes.scale.end(), [](float s) { return std::isfinite(s); })) {
    throw bad_input(printable(module), ".weight: values are too large for the float16 scales that AWQ stores");
  }
  SolvedModule out;
  out.linear.weight = pack_grid(codes, rows, 4, config_.options.inputs_per_group(cols), exec);
  out.linear.record = std::make_shared<Record>();  // as a gemm file's reader would load it
  if (config_.variant != Variant::gemm) out.linear = kVariants.rewrite(module, out.linear, name_of(config_.variant));
  if (const auto found = config_.activations.find(module); found != config_.activations.end()) {
    Tensor stored({cols}, DType::f16);
    for (std::int64_t k = 0; k < cols; ++k)
      store_from_f32(DType::f16, stored.data(), k, scales.inputs[static_cast<std::size_t>(k)]);
    out.tensors.push_back({found->second + ".scales", std::move(stored)});
  }
  for (StoredTensor& tensor : store(module, out.linear, exec)) out.tensors.push_back(std::move(tensor));
  return out;
}

void Quantizer::add_scaled(const std::string& module, const Scaled& weight, std::span<const float> group_grams,
                           Exec& exec) {
  const auto rows = static_cast<std::int64_t>(weight.output_scales.size());
  const auto cols = static_cast<std::int64_t>(weight.input_scales.size());
  Scales scales{weight.input_scales, weight.output_scales};
  SolvedModule solved = round(module, {weight.values.data(), rows}, cols, group_grams, scales, exec);
  restore(module, std::move(solved), std::move(scales));
}

const Quantizer::Scales& Quantizer::scales(const std::string& module) const {
  const auto found = scales_.find(module);
  check(found != scales_.end(), "awq::Quantizer: a module without scales");
  return found->second;
}

void Quantizer::restore(const std::string& module, SolvedModule solved, Scales scales) {
  add(module, std::move(solved));
  scales_.insert_or_assign(module, std::move(scales));
}

SolvedModule Quantizer::solve(const std::string& module, std::span<const float> weight, std::int64_t rows,
                              std::int64_t cols, std::span<const float> gram, Exec& exec) {
  const Scales none{std::vector<float>(static_cast<std::size_t>(cols), 1.0F), {}};
  if (config_.solver) {
    GptqResult solved = solve_grid(weight, rows, gram, *config_.solver, exec);
    for (float& scale : solved.scale) scale = round_to(DType::f16, scale);
    SolvedModule out = stored(module, solved, rows, cols, none, exec);
    out.loss = solved.loss;
    out.damp = solved.damp;
    out.dead = solved.dead;
    out.rounded = solved.rounded;
    return out;
  }
  const std::int64_t group = config_.options.inputs_per_group(cols);
  std::vector<float> blocks(static_cast<std::size_t>(config_.options.clip && !gram.empty() ? cols * group : 0));
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / group, col = static_cast<std::int64_t>(i) % group;
    blocks[i] = gram[static_cast<std::size_t>(row * cols + row / group * group + col)];
  }
  return round(module, {weight.data(), rows}, cols, blocks, none, exec);
}

std::string Quantizer::describe(const std::string&, const Shape&, DType) const {
  if (config_.solver) {
    return cat(name_of(config_.variant), " int4, group_size ", config_.options.group, ", by ",
               config_.solver->algorithm == GridAlgorithm::rtn ? "rounding" : "gptq");
  }
  return cat(name_of(config_.variant), " int4, group_size ", config_.options.group);
}

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType) const {
  check_shape(module, weight, config_);
  const std::int64_t rows = weight[0], cols = weight[1], group = config_.options.inputs_per_group(cols);
  const std::int64_t groups = cols / group, stored = zeros_width(groups, group) * 8;
  std::vector<TensorPlan> out;
  if (const auto found = config_.activations.find(module); found != config_.activations.end())
    out.push_back({found->second + ".scales", DType::f16, {cols}});
  const auto plan = [&](const char* part, DType dtype, Shape shape) {
    out.push_back({module + part, dtype, std::move(shape)});
  };
  switch (config_.variant) {
    case Variant::gemm:
      plan(".qweight", DType::i32, {cols, rows / 8});
      plan(".qzeros", DType::i32, {groups, rows / 8});
      plan(".scales", DType::f16, {groups, rows});
      break;
    case Variant::gemv:
      plan(".qweight", DType::i32, {rows, cols / 8});
      plan(".qzeros", DType::i32, {rows, stored / 8});
      plan(".scales", DType::f16, {rows, stored});
      break;
    case Variant::gemv_fast:
    case Variant::llm_awq:
      plan(".qweight", DType::i16, {rows / 4, cols});
      plan(config_.variant == Variant::llm_awq ? ".scaled_zeros" : ".qzeros", DType::f16, {stored, rows});
      plan(".scales", DType::f16, {stored, rows});
      break;
  }
  return out;
}

std::int64_t Quantizer::working_bytes(const std::string&, const Shape& weight, DType, int) const {
  const std::int64_t rows = weight.at(0), cols = weight.at(1);
  if (config_.solver) return cols * cols * 28 + rows * cols * 14;  // as for gptq::Quantizer
  // The Gram matrix in f64 and half of it in f32; the weight, a scaled copy, its codes and clipped groups.
  return cols * cols * 10 + rows * cols * 10 + (std::int64_t{16} << 20);
}

const Tensor* Quantizer::replacement(std::string_view tensor) const {
  const auto found = replacements_.find(tensor);
  return found == replacements_.end() ? nullptr : &found->second;
}

std::optional<Json> Quantizer::quantization_config(const SelectionResult& selected) const {
  Json json = Json::Object{{"bits", 4},
                           {"group_size", config_.options.group},
                           {"modules_to_not_convert", not_converted(selected, config_.never)},
                           {"quant_method", "awq"},
                           {"version", name_of(config_.variant)},
                           {"zero_point", true}};
  if (config_.variant == Variant::llm_awq) json.set("backend", "llm-awq");
  return json;
}

void Quantizer::as_in_source(const std::string& module, std::int64_t row, std::span<float> values) const {
  const auto found = scales_.find(module);
  if (found == scales_.end()) return;
  const float factor = found->second.outputs[static_cast<std::size_t>(row)];
  for (std::size_t k = 0; k < values.size(); ++k) values[k] *= factor / found->second.inputs[k];
}

}  // namespace nibble::awq
