#include "models/config_reader.h"

#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace nibble::models {
namespace {

struct NamedActivation {
  std::string_view name;
  Activation activation;
};
constexpr std::array kActivations{
    NamedActivation{"silu", Activation::silu},
    NamedActivation{"swish", Activation::silu},
    NamedActivation{"gelu", Activation::gelu},
    NamedActivation{"gelu_python", Activation::gelu},
    NamedActivation{"gelu_new", Activation::gelu_tanh},
    NamedActivation{"gelu_fast", Activation::gelu_tanh},
    NamedActivation{"gelu_accurate", Activation::gelu_tanh},
    NamedActivation{"gelu_pytorch_tanh", Activation::gelu_tanh},
    NamedActivation{"gelu_python_tanh", Activation::gelu_tanh},
    NamedActivation{"quick_gelu", Activation::gelu_quick},
    NamedActivation{"relu", Activation::relu},
    NamedActivation{"tanh", Activation::tanh},
    NamedActivation{"linear", Activation::identity},
};

}  // namespace

ConfigReader::Found ConfigReader::look(const Keys& keys) const {
  for (const std::string_view key : keys) {
    if (const Json* value = object_.get(key)) return {key, value};
  }
  return {keys.empty() ? std::string_view("(none)") : keys.front(), nullptr};
}

const Json* ConfigReader::find(const Keys& keys) const { return look(keys).value; }

std::string ConfigReader::field(std::string_view key) const { return where_ + ": field " + std::string(key); }

std::int64_t ConfigReader::integer(const Keys& keys, std::int64_t low, std::int64_t high,
                                   std::optional<std::int64_t> otherwise) const {
  const Found found = look(keys);
  if (found.value == nullptr) {
    if (!otherwise) throw bad_input(field(found.key), " is missing");
    return *otherwise;
  }
  const std::int64_t value = found.value->integer(field(found.key));
  if (value < low || value > high) {
    throw bad_input(field(found.key), " is ", value, ", which is not between ", low, " and ", high);
  }
  return value;
}

double ConfigReader::number(const Keys& keys, double low, double high, std::optional<double> otherwise) const {
  const Found found = look(keys);
  if (found.value == nullptr) {
    if (!otherwise) throw bad_input(field(found.key), " is missing");
    return *otherwise;
  }
  const double value = found.value->number(field(found.key));
  if (!(value >= low && value <= high)) {
    throw bad_input(field(found.key), " is ", value, ", which is not between ", low, " and ", high);
  }
  return value;
}

bool ConfigReader::boolean(const Keys& keys, bool otherwise) const {
  const Found found = look(keys);
  return found.value == nullptr ? otherwise : found.value->boolean(field(found.key));
}

std::string ConfigReader::text(const Keys& keys, std::string_view otherwise) const {
  const Found found = look(keys);
  return found.value == nullptr ? std::string(otherwise) : found.value->string(field(found.key));
}

Activation ConfigReader::activation(const Keys& keys, std::string_view otherwise) const {
  return activation_named(text(keys, otherwise), field(look(keys).key));
}

std::optional<DType> ConfigReader::float_type() const {
  const std::string name = text({"dtype", "torch_dtype"}, "");
  if (name.empty() || name == "auto") return std::nullopt;
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype || !is_float(*dtype)) {
    throw bad_input(field(has({"dtype"}) ? "dtype" : "torch_dtype"), ": unknown float type ", printable(name));
  }
  return dtype;
}

Activation activation_named(std::string_view name, std::string_view where) {
  for (const NamedActivation& known : kActivations) {
    if (known.name == name) return known.activation;
  }
  std::string all;
  for (const NamedActivation& known : kActivations) all += (all.empty() ? "" : ", ") + std::string(known.name);
  throw bad_input(where, ": unknown activation ", printable(name), "; known are ", all);
}

}  // namespace nibble::models
