#include <array>

#include "quant/aqlm/aqlm.h"

#include <algorithm>

#include "layout/codebook/codebook.h"
#include "quant/common/module_tensors.h"

namespace nibble::aqlm {
namespace {

using quant::wrong_kind;

/// Between module and part in checkpoints of the training code.
constexpr std::string_view kTrainingInfix = ".quantized_weight";

const Json* find_config(const Checkpoint& checkpoint) {
  const Json* config = checkpoint.config().get("quantization_config");
  if (config == nullptr || !config->is_object()) return nullptr;
  const Json* method = config->get("quant_method");
  return method != nullptr && method->is_string() && method->string("quant_method") == "aqlm" ? config : nullptr;
}

bool claims(const Checkpoint& checkpoint) { return find_config(checkpoint) != nullptr; }

std::unique_ptr<SchemeReader> open(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<Reader>(std::move(checkpoint));
}

/// `name` without `end`, or "".
std::string_view without(std::string_view name, std::string_view end) {
  if (name.size() <= end.size() || name.substr(name.size() - end.size()) != end) return {};
  return name.substr(0, name.size() - end.size());
}

/// The module that owns a tensor of the format, or "". The list of weights not to quantize is not asked: what counts is
/// what the file holds.
std::string_view module_of(std::string_view name) {
  std::string_view module = without(name, ".codes");
  if (module.empty()) module = without(name, ".codebooks");
  const std::string_view inner = without(module, kTrainingInfix);
  return inner.empty() ? module : inner;
}

std::int64_t read_number(const Json& json, const std::string& where, std::string_view key, std::int64_t otherwise,
                         std::int64_t most) {
  const Json* value = json.get(key);
  if (value == nullptr) return otherwise;
  const std::string name = cat(where, ": quantization_config.", key);
  const std::int64_t number = value->integer(name);
  if (number < 1 || number > most) throw bad_input(name, ": ", number, " (1 to ", most, " is supported)");
  return number;
}

std::vector<StoredTensor> store_copies(const std::string& module, const LinearWeights& linear, Exec&) {
  return quant::copies_of(store(module, linear));
}

constexpr std::array<SchemeForm, 1> kForms{{{"codebooks", 0, &codebook::kLayout}}};

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{
    "aqlm", "AQLM: sums of codebook vectors, any number and size of codebooks", &claims, &open, &store_copies, kForms};

DType code_dtype(std::int64_t nbits) { return nbits <= 8 ? DType::i8 : nbits <= 16 ? DType::i16 : DType::i32; }

Config parse_config(const Json& json, const std::string& where) {
  Config config;
  config.num_codebooks = read_number(json, where, "num_codebooks", config.num_codebooks, 256);
  config.nbits_per_codebook =
      read_number(json, where, "nbits_per_codebook", config.nbits_per_codebook, codebook::kMaxBits);
  config.out_group_size = read_number(json, where, "out_group_size", config.out_group_size, 1 << 16);
  config.in_group_size = read_number(json, where, "in_group_size", config.in_group_size, 1 << 16);
  if (const Json* list = json.get("linear_weights_not_to_quantize"); list != nullptr) {
    const std::string name = where + ": quantization_config.linear_weights_not_to_quantize";
    for (const Json& item : list->array(name)) config.not_to_quantize.push_back(item.string(name));
  }
  return config;
}

Reader::Reader(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {
  const Json* config = find_config(*checkpoint_);
  check(config != nullptr, "aqlm: opened without its config");
  config_ = parse_config(*config, (checkpoint_->folder() / "config.json").string());
  for (const TensorEntry& entry : checkpoint_->tensors()) {
    const std::string_view module = module_of(entry.name);
    if (!module.empty()) modules_.emplace_back(module);
  }
  std::sort(modules_.begin(), modules_.end());
  modules_.erase(std::unique(modules_.begin(), modules_.end()), modules_.end());
  for (const std::string& module : modules_) parts(module);
}

bool Reader::has(std::string_view module) const {
  return std::binary_search(modules_.begin(), modules_.end(), module, std::less<>());
}

Reader::Parts Reader::parts(const std::string& module) const {
  const std::string training = cat(module, kTrainingInfix);
  const std::string prefix = checkpoint_->find(training + ".codes") != nullptr ? training : module;
  Parts p;
  p.codes = &quant::need_tensor(*checkpoint_, prefix + ".codes");
  p.codebooks = &quant::need_tensor(*checkpoint_, prefix + ".codebooks");
  p.scales = &quant::need_tensor(*checkpoint_, prefix + ".scales");
  const View &codes = p.codes->view, &books = p.codebooks->view, &scales = p.scales->view;
  const Config& c = config_;
  if (codes.dtype() != code_dtype(c.nbits_per_codebook) || codes.rank() != 3 || codes.dim(2) != c.num_codebooks) {
    throw wrong_kind(*p.codes, name_of(code_dtype(c.nbits_per_codebook)), " [output groups, input groups, ",
                     c.num_codebooks, "] for ", c.nbits_per_codebook, " bits and ", c.num_codebooks, " codebooks");
  }
  const Shape shape{c.num_codebooks, std::int64_t{1} << c.nbits_per_codebook, c.out_group_size, c.in_group_size};
  const auto is_value = [](DType dtype) { return dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f32; };
  if (!is_value(books.dtype()) || books.shape() != shape) throw wrong_kind(*p.codebooks, "floats ", to_string(shape));
  if (!is_value(scales.dtype()) || scales.shape() != Shape{codes.dim(0), 1, 1, 1}) {
    throw wrong_kind(*p.scales, "floats ", to_string({codes.dim(0), 1, 1, 1}), " (one scale per group of outputs)");
  }
  const std::int64_t rows = count_of({codes.dim(0), c.out_group_size});
  count_of({rows, codes.dim(1), c.in_group_size});
  quant::bias_of(*checkpoint_, module, rows);
  return p;
}

LinearWeights Reader::load(const std::string& module, LinearSize size, Exec& exec) const {
  const Parts p = parts(module);
  quant::check_size(*p.codes, p.codes->view.dim(0) * config_.out_group_size,
                    p.codes->view.dim(1) * config_.in_group_size, size.rows, size.cols);
  LinearWeights linear;
  try {
    linear.weight = codebook::make(p.codes->view, p.codebooks->view, p.scales->view, checkpoint_->owner(), exec);
  } catch (const Error& error) {  // codes outside the codebook: only the layout looks at every one
    throw quant::wrong_tensor(*p.codes, error.what());
  }
  linear.bias = quant::bias_of(*checkpoint_, module, linear.weight.rows);
  return linear;
}

std::string Reader::describe(std::string_view module) const {
  if (!has(module)) return {};
  const Config& c = config_;
  std::string out = cat(c.num_codebooks, "x", c.nbits_per_codebook, ", in_group_size ", c.in_group_size);
  if (c.out_group_size != 1) out += cat(", out_group_size ", c.out_group_size);
  const std::string weight = cat(module, ".weight");
  if (std::find(c.not_to_quantize.begin(), c.not_to_quantize.end(), weight) != c.not_to_quantize.end()) {
    out += ", listed in linear_weights_not_to_quantize and quantized all the same";
  }
  return out;
}

quant::StoredTensors store(const std::string& module, const LinearWeights& linear) {
  const QTensor& w = linear.weight;
  check(w.layout == &codebook::kLayout, "aqlm::store: another layout");
  quant::StoredTensors out;
  out.push_back({module + ".codes", w.part[0], w.owner});
  out.push_back({module + ".codebooks", w.part[1], w.owner});
  out.push_back({module + ".scales", w.part[2].reshaped({w.part[2].count(), 1, 1, 1}), w.owner});
  if (linear.bias) out.push_back({module + ".bias", *linear.bias, w.owner});
  return out;
}

}  // namespace nibble::aqlm
