#include "quant/solved_quantizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace nibble {
namespace {

const Scheme* scheme_named(std::string_view name) {
  for (const Scheme* scheme : all_schemes()) {
    if (scheme->name == name) return scheme;
  }
  return nullptr;
}

void check_same_bytes(const Checkpoint& written, const StoredTensor& tensor) {
  const View& view = written.at(tensor.name);
  if (view.shape() != tensor.tensor.shape() || view.dtype() != tensor.tensor.dtype() ||
      std::memcmp(view.data(), tensor.tensor.view().data(), view.size_bytes()) != 0) {
    throw runtime_failure(written.folder().string(), ": tensor ", printable(tensor.name),
                          " reads back other than it was written");
  }
}

}  // namespace

SolvedQuantizer::SolvedQuantizer(std::string_view scheme) : scheme_(scheme_named(scheme)) {
  check(scheme_ != nullptr, "solved_quantizer: no such scheme");
}

double SolvedQuantizer::solve_work(std::int64_t rows, std::int64_t cols) const {
  const double n = static_cast<double>(cols);
  return n * n * (n + static_cast<double>(rows));
}

void SolvedQuantizer::add(const std::string& module, SolvedModule solved) {
  solved.linear = {};
  modules_.insert_or_assign(module, std::move(solved));
}

std::string SolvedQuantizer::note(const std::string&, const Shape&, DType) const { return {}; }

void SolvedQuantizer::quantize(const std::string& module, const TensorEntry&, ThreadPool&, const Sink& sink) {
  const auto found = modules_.find(module);
  check(found != modules_.end(), "solved_quantizer: a module without calibration");
  for (const StoredTensor& tensor : found->second.tensors) sink(tensor.name, tensor.tensor.view().bytes());
}

void SolvedQuantizer::as_in_source(const std::string&, std::int64_t, std::span<float>) const {}

void SolvedQuantizer::open_result(std::shared_ptr<const Checkpoint> written) {
  written_ = written;
  result_ = scheme_->open(std::move(written));
}

QuantizationError SolvedQuantizer::verify(const std::string& module, const TensorEntry& weight,
                                          ThreadPool& pool) const {
  check(result_ != nullptr, "solved_quantizer: verify before open_result");
  for (const StoredTensor& tensor : modules_.at(module).tensors) check_same_bytes(*written_, tensor);
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
  const Shape& shape = weight.view.shape();
  const LinearWeights linear = result_->load(module, {shape.at(0), shape.at(1)}, exec);
  std::vector<float> values(static_cast<std::size_t>(shape[1]));
  QuantizationError error;
  for (std::int64_t r = 0; r < shape[0]; ++r) {
    decode(linear.weight, r, 1, values.data(), exec);
    as_in_source(module, r, values);
    for (std::int64_t k = 0; k < shape[1]; ++k) {
      const float w = weight.view.at(r * shape[1] + k), distance = std::fabs(w - values[static_cast<std::size_t>(k)]);
      if (!std::isfinite(distance)) throw runtime_failure(printable(module), ": a stored value is not finite");
      error.add({distance, static_cast<double>(distance) * static_cast<double>(distance),
                 static_cast<double>(w) * static_cast<double>(w)});
    }
  }
  return error;
}

}  // namespace nibble
