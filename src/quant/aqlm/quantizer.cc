#include "quant/aqlm/quantizer.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "layout/codebook/codebook.h"

namespace nibble::aqlm {
namespace {

/// What a QTensor's views point into.
struct Parts {
  Tensor codes, codebooks, scales;
};

std::int64_t words_of(const Options& options) { return std::int64_t{1} << options.bits; }

void check_shape(const std::string& module, const Shape& weight, const Options& options) {
  if (weight.size() != 2 || weight[1] % options.group != 0) {
    throw bad_input(printable(module), ": groups of ", options.group, " do not divide the inputs of a weight of ",
                    to_string(weight), "; choose another --in-group-size or exclude it");
  }
}

/// Codes as they are stored: u - 2^N when u >= 2^(N-1).
Tensor stored_codes(std::int64_t rows, const Solution& solved, const Options& options) {
  const auto count = static_cast<std::int64_t>(solved.codes.size());
  Tensor out({rows, count / rows / options.codebooks, options.codebooks}, code_dtype(options.bits));
  const std::int64_t words = words_of(options);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t u = solved.codes[static_cast<std::size_t>(i)];
    store_from_f32(out.dtype(), out.data(), i, static_cast<float>(u >= words / 2 ? u - words : u));
  }
  return out;
}

Tensor half_floats(const std::vector<float>& values, Shape shape) {
  Tensor out(std::move(shape), DType::f16);
  convert_from_f32(DType::f16, values.data(), out.data(), static_cast<std::int64_t>(values.size()));
  return out;
}

}  // namespace

void parse_shape(std::string_view text, Options& options) {
  const char *at = text.data(), *end = text.data() + text.size();
  std::int64_t codebooks = 0, bits = 0;
  const auto first = std::from_chars(at, end, codebooks);
  const bool cross = first.ec == std::errc() && first.ptr != end && (*first.ptr == 'x' || *first.ptr == 'X');
  const auto second = cross ? std::from_chars(first.ptr + 1, end, bits) : first;
  if (!cross || second.ec != std::errc() || second.ptr != end) {
    throw bad_input("--aqlm: ", printable(text), " is not of the form KxN, codebooks times bits (2x8, 1x16)");
  }
  options.codebooks = codebooks;
  options.bits = bits;
  check_options(options, options.group);
}

SolvedModule pack(const std::string& module, std::int64_t rows, std::int64_t cols, const Solution& solved,
                  const Options& options, Exec& exec) {
  auto parts = std::make_shared<Parts>();
  parts->codes = stored_codes(rows, solved, options);
  parts->codebooks = half_floats(solved.words, {options.codebooks, words_of(options), 1, options.group});
  parts->scales = half_floats(solved.scales, {rows});
  SolvedModule out;
  out.linear.weight = codebook::make(parts->codes, parts->codebooks, parts->scales, parts, exec);
  check(out.linear.weight.cols == cols, "aqlm::pack: columns");
  out.tensors = quant::copies_of(store(module, out.linear));
  out.loss = solved.loss / 2;
  return out;
}

Quantizer::Quantizer(QuantizerConfig config) : SolvedQuantizer("aqlm"), config_(config) {
  check_options(config_.options, config_.options.group);
}

std::string Quantizer::describe(const std::string&, const Shape&, DType) const {
  const Options& o = config_.options;
  return cat(o.codebooks, "x", o.bits, ", in_group_size ", o.group);
}

std::vector<TensorPlan> Quantizer::outputs(const std::string& module, const Shape& weight, DType) const {
  const Options& o = config_.options;
  check_shape(module, weight, o);
  return {{module + ".codes", code_dtype(o.bits), {weight[0], weight[1] / o.group, o.codebooks}},
          {module + ".codebooks", DType::f16, {o.codebooks, words_of(o), 1, o.group}},
          {module + ".scales", DType::f16, {weight[0], 1, 1, 1}}};
}

std::int64_t Quantizer::working_bytes(const std::string&, const Shape& weight, DType, int) const {
  const Options& o = config_.options;
  const std::int64_t rows = weight.at(0), cols = weight.at(1), codes = rows * cols / o.group * o.codebooks;
  const std::int64_t words = o.codebooks * words_of(o);
  // The Gram matrix in f64 and four times in f32; the weight, its targets and what passes over it need; codes and where
  // words are used; the words, their preconditioner and their norms for a block of groups.
  return cols * cols * 24 + rows * cols * 36 + codes * 24 + words * (4 * o.group * (o.group + 8) + 64 * 16);
}

std::string Quantizer::note(const std::string&, const Shape& weight, DType) const {
  const Options& o = config_.options;
  const std::int64_t groups = weight.at(0) * weight.at(1) / o.group, codes = groups * o.codebooks * o.bits;
  const std::int64_t books = o.codebooks * words_of(o) * o.group * 16;
  if (books <= codes) return {};
  return cat("codebooks of ", o.codebooks, "x", o.bits, " take more room than the codes of a weight this small",
             groups < words_of(o) ? " and have more words than it has groups" : "");
}

std::optional<Json> Quantizer::quantization_config(const SelectionResult& selected) const {
  Json::Array kept;
  const auto add = [&](const std::string& module) {
    kept.emplace_back(module + ".weight");
    kept.emplace_back(module);
  };
  for (const std::string& module : selected.kept) add(module);
  if (std::find(selected.kept.begin(), selected.kept.end(), "lm_head") == selected.kept.end()) add("lm_head");
  const Options& o = config_.options;
  return Json::Object{{"in_group_size", o.group},          {"linear_weights_not_to_quantize", std::move(kept)},
                      {"nbits_per_codebook", o.bits},      {"num_codebooks", o.codebooks},
                      {"out_group_size", std::int64_t{1}}, {"quant_method", "aqlm"}};
}

double Quantizer::solve_work(std::int64_t rows, std::int64_t cols) const {
  const Options& o = config_.options;
  // Choosing the best partial sums costs several times what comparing words does; measured at 256 and 2048 inputs.
  constexpr double kChoosing = 4;
  const auto passes = static_cast<double>(2 * o.effort.passes + 1);
  const auto partial_sums = static_cast<double>(1 + 2 * o.effort.beam * (o.codebooks - 1));
  const double words = static_cast<double>(words_of(o)) * partial_sums * (o.codebooks > 1 ? kChoosing : 1);
  const double products = static_cast<double>(cols) * (passes + static_cast<double>(o.effort.fit_steps) + 4);
  return static_cast<double>(rows) * static_cast<double>(cols) * (passes * words + products);
}

SolvedModule Quantizer::solve(const std::string& module, std::span<const float> weight, std::int64_t rows,
                              std::int64_t cols, std::span<const float> gram, Exec& exec) {
  try {
    SolvedModule out =
        pack(module, rows, cols, aqlm::solve(weight, rows, gram, config_.options, exec), config_.options, exec);
    for (std::int64_t i = 0; i < cols; ++i) out.dead += gram[static_cast<std::size_t>(i * (cols + 1))] == 0 ? 1 : 0;
    return out;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::bad_input) throw;
    throw bad_input(printable(module), ": ", error.what());
  }
}

}  // namespace nibble::aqlm
