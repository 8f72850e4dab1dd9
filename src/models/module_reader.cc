#include "models/module_reader.h"

#include <utility>

#include "base/error.h"
#include "layout/dense/dense.h"

namespace nibble::models {

std::string ModuleReader::find_prefix(std::span<const std::string_view> prefixes, std::string_view probe,
                                      std::string_view hf_class) const {
  for (const std::string_view wrap : kWraps) {
    for (const std::string_view base : prefixes) {
      std::string prefix = std::string(wrap) + std::string(base);
      if (weights_.find(cat(prefix, probe)) != nullptr) return prefix;
    }
  }
  throw bad_input(place(), ": tensor ", prefixes.front(), probe, " is missing (nor is there one of that name without ",
                  "or with another prefix): this is no ", hf_class, " checkpoint");
}

void ModuleReader::check_shape(const std::string& tensor, const Shape& found, const Shape& expected) const {
  if (found == expected) return;
  throw bad_input(place(), ": tensor ", tensor, " has shape ", to_string(found), ", but config.json asks for ",
                  to_string(expected));
}

const View& ModuleReader::checked(const std::string& tensor, const Shape& shape) const {
  const View& view = weights_.at(tensor);
  check_shape(tensor, view.shape(), shape);
  const DType t = view.dtype();
  if (t == DType::f32 || t == DType::f16 || t == DType::bf16) return view;
  throw bad_input(place(), ": tensor ", tensor, ": expected f32, f16 or bf16, found ", name_of(t));
}

std::vector<float> ModuleReader::values(const std::string& tensor, const Shape& shape) const {
  return checked(tensor, shape).to_f32();
}

QTensor ModuleReader::matrix(const std::string& tensor, const Shape& shape, std::int64_t rows) const {
  const View& view = checked(tensor, shape);
  return dense::make(view.reshaped({rows, view.count() / rows}), weights_.owner());
}

nn::Norm ModuleReader::norm(const std::string& module, nn::NormKind kind, double eps, std::int64_t size) const {
  nn::Norm made;
  made.name = module;
  made.kind = kind;
  made.eps = static_cast<float>(eps);
  made.size = size;
  const bool old = weights_.find(module + ".weight") == nullptr && weights_.find(module + ".gamma") != nullptr;
  made.weight = values(module + (old ? ".gamma" : ".weight"), {size});
  if (kind == nn::NormKind::layer) made.bias = values(module + (old ? ".beta" : ".bias"), {size});
  return made;
}

nn::Linear ModuleReader::linear(const std::string& module, Size size, bool bias) const {
  return linear(module, weights_.linear(module, exec_, {size.outputs, size.inputs}), size, bias);
}

nn::Linear ModuleReader::linear(const std::string& module, LinearWeights read, Size size, bool bias) const {
  nn::Linear made;
  made.name = module;
  check_shape(module + ".weight", {read.weight.rows, read.weight.cols}, {size.outputs, size.inputs});
  made.weight = std::move(read.weight);
  made.activation = read.activation;
  // A quantized linear applies the bias that it stores even where the family has none, as its library does.
  if (bias || (read.record != nullptr && read.bias)) {
    if (!read.bias) throw bad_input(place(), ": tensor ", module, ".bias is missing");
    check_shape(module + ".bias", read.bias->shape(), {size.outputs});
    made.bias = read.bias->to_f32();
  }
  return made;
}

}  // namespace nibble::models
