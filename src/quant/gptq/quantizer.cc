#include "quant/gptq/quantizer.h"

#include <algorithm>

#include "base/error.h"

namespace nibble::gptq {
namespace {

constexpr std::int64_t kWord = 32;  // codes of inputs and zero points of outputs fill whole words

std::int64_t groups_of(const GptqOptions& options, std::int64_t cols) {
  return options.group == -1 ? 1 : (cols + options.group - 1) / options.group;
}

void check_shape(const std::string& module, const Shape& weight, const GptqOptions& options) {
  if (weight.size() != 2 || weight[0] % kWord != 0 || weight[1] % kWord != 0) {
    throw bad_input(printable(module), ": a weight of ", to_string(weight),
                    " cannot be stored as GPTQ, which packs multiples of 32 outputs and inputs; exclude it");
  }
  if (options.group != -1 && weight[1] % options.group != 0) {
    throw bad_input(printable(module), ": groups of ", options.group, " do not divide its ", weight[1],
                    " inputs; choose another group size or exclude it");
  }
}

/// "model.layers.1.mlp" as a regular expression.
std::string escaped(const std::string& name) {
  std::string out;
  for (const char c : name) out += c == '.' ? std::string("\\.") : std::string{c};
  return out;
}

}  // namespace

SolvedModule pack(const std::string& module, std::int64_t rows, std::int64_t cols, const GptqResult& solved,
                  const QuantizerConfig& config, Exec& exec) {
  const GptqOptions& o = config.solver.options;
  SolvedModule out;
  out.linear.weight = pack_grid(solved, rows, o.bits, o.group == -1 ? cols : o.group, exec);
  auto record = std::make_shared<Record>();
  record->zeros = config.zeros();
  out.linear.record = std::move(record);
  out.tensors = store(module, out.linear, exec);
  out.loss = solved.loss;
  out.damp = solved.damp;
  out.dead = solved.dead;
  out.rounded = solved.rounded;
  return out;
}

Quantizer::Quantizer(QuantizerConfig config) : SolvedQuantizer("gptq"), config_(std::move(config)) {
  const std::int32_t bits = config_.solver.options.bits;
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    throw bad_input("GPTQ: ", bits, " bits (2, 3, 4 and 8 can be stored)");
  }
}

std::string Quantizer::describe(const Shape&, DType) const {
  const GptqOptions& o = config_.solver.options;
  return cat("int", o.bits, ", group_size ", o.group, o.sym ? ", sym" : ", asym", o.desc_act ? ", desc_act" : "");
}

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType) const {
  check_shape(module, weight, config_.solver.options);
  const std::int64_t rows = weight[0], cols = weight[1], bits = config_.solver.options.bits;
  const std::int64_t groups = groups_of(config_.solver.options, cols);
  return {{module + ".g_idx", DType::i32, {cols}},
          {module + ".qweight", DType::i32, {cols * bits / 32, rows}},
          {module + ".qzeros", DType::i32, {groups, rows * bits / 32}},
          {module + ".scales", DType::f16, {groups, rows}}};
}

std::int64_t Quantizer::working_bytes(const Shape& weight, DType, int) const {
  const std::int64_t rows = weight.at(0), cols = weight.at(1);
  // The Gram matrix in f64, and f32 matrices while it is factored; the weight, its codes and its updates.
  return cols * cols * 28 + rows * cols * 14;
}

std::optional<Json> Quantizer::quantization_config(const SelectionResult& selected) const {
  const GptqOptions& o = config_.solver.options;
  const char* format = config_.zeros() == Zeros::v1 ? "gptq" : "gptq_v2";
  Json json =
      Json::Object{{"bits", std::int64_t{o.bits}},
                   {"checkpoint_format", format},
                   {"damp_percent", o.damp},
                   {"desc_act", o.desc_act},
                   {"group_size", o.group},
                   {"lm_head", false},
                   {"meta", Json::Object{{"quantizer", Json::Array{"nibble"}},
                                         {"algorithm", config_.solver.algorithm == GridAlgorithm::rtn ? "rtn" : "gptq"},
                                         {"refine", std::int64_t{config_.solver.refine}},
                                         {"static_groups", o.static_groups}}},
                   {"pack_dtype", "int32"},
                   {"quant_method", "gptq"},
                   {"static_groups", o.static_groups},
                   {"sym", o.sym},
                   {"true_sequential", config_.true_sequential}};
  Json::Object kept;
  for (const std::string& module : selected.kept) kept.emplace_back("-:^" + escaped(module) + "$", Json::Object{});
  if (!kept.empty()) json.set("dynamic", std::move(kept));
  return json;
}

SolvedModule Quantizer::solve(const std::string& module, std::span<const float> weight, std::int64_t rows,
                              std::int64_t cols, std::span<const float> gram, Exec& exec) {
  const GptqResult solved = solve_grid(weight, rows, gram, config_.solver, exec);
  return pack(module, rows, cols, solved, config_, exec);
}

}  // namespace nibble::gptq
