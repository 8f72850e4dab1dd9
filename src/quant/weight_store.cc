// The weights of a model, whatever scheme wrote them.
#include <algorithm>
#include <functional>

#include "layout/dense/dense.h"
#include "quant/scheme.h"

namespace nibble {
namespace {

/// The tensor `module`.`part`, or nullptr.
const TensorEntry* find_part(const Checkpoint& checkpoint, std::string_view module, std::string_view part) {
  return checkpoint.find(cat(module, ".", part));
}

/// Gives back the pages of a module's tensors that its weight, packed anew, does not use.
void release_unused(const Checkpoint& checkpoint, const std::string& module, const LinearWeights& linear) {
  const auto uses = [](const View& part, const View& tensor) {
    const std::less<const std::byte*> before;
    return before(part.data(), tensor.data() + tensor.size_bytes()) &&
           before(tensor.data(), part.data() + part.size_bytes());
  };
  const std::string prefix = module + ".";
  const auto tensors = checkpoint.tensors();
  auto entry = std::lower_bound(tensors.begin(), tensors.end(), prefix,
                                [](const TensorEntry& tensor, const std::string& name) { return tensor.name < name; });
  for (; entry != tensors.end() && entry->name.compare(0, prefix.size(), prefix) == 0; ++entry) {
    bool used = linear.bias && uses(*linear.bias, entry->view);
    for (const View& part : linear.weight.part) used = used || uses(part, entry->view);
    if (!used) checkpoint.release(entry->view);
  }
}

bool is_plain(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

/// quantization_config.quant_method of config.json as one printable word; empty when the config has none.
std::string declared_method(const Checkpoint& checkpoint) {
  const Json* declared = checkpoint.config().get("quantization_config");
  if (declared == nullptr) declared = checkpoint.config().get("compression_config");
  if (declared == nullptr) return {};
  const Json* method = declared->get("quant_method");
  return method != nullptr && method->is_string() ? printable(method->string("quant_method"), 40) : "unnamed";
}

}  // namespace

WeightStore::WeightStore(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {
  for (const Scheme* scheme : all_schemes()) {
    if (!scheme->claims(*checkpoint_)) continue;
    scheme_ = scheme;
    reader_ = scheme->open(checkpoint_);
    return;
  }
  const std::string method = declared_method(*checkpoint_);
  if (!method.empty()) {
    throw bad_input(checkpoint_->folder().string(), "/config.json: quantization_config: method ", method,
                    " is not supported");
  }
}

WeightStore::~WeightStore() = default;

LinearWeights WeightStore::linear(const std::string& module, Exec& exec, LinearSize size) const {
  if (reader_ != nullptr && reader_->has(module)) {
    LinearWeights linear = reader_->load(module, size, exec);
    release_unused(*checkpoint_, module, linear);
    return linear;
  }
  const TensorEntry* weight = find_part(*checkpoint_, module, "weight");
  if (weight == nullptr) {
    throw bad_input(checkpoint_->folder().string(), ": tensor ", module, ".weight is missing");
  }
  const View& view = weight->view;
  if (view.rank() != 2 || !is_plain(view.dtype())) {
    throw bad_input(weight->file.string(), ": tensor ", module, ".weight: expected an f32, f16 or bf16 matrix, found ",
                    name_of(view.dtype()), " ", to_string(view.shape()));
  }
  LinearWeights linear;
  linear.weight = dense::make(view, owner());
  const TensorEntry* bias = find_part(*checkpoint_, module, "bias");
  if (bias != nullptr) {
    if (bias->view.rank() != 1 || bias->view.dim(0) != view.dim(0) || !is_plain(bias->view.dtype())) {
      throw bad_input(bias->file.string(), ": tensor ", module, ".bias: expected ", view.dim(0), " floats, found ",
                      name_of(bias->view.dtype()), " ", to_string(bias->view.shape()));
    }
    linear.bias = bias->view;
  }
  return linear;
}

bool WeightStore::has_linear(const std::string& module) const {
  return (reader_ != nullptr && reader_->has(module)) || find_part(*checkpoint_, module, "weight") != nullptr;
}

const View* WeightStore::find(std::string_view tensor) const {
  const TensorEntry* entry = checkpoint_->find(tensor);
  return entry == nullptr ? nullptr : &entry->view;
}

const View& WeightStore::at(std::string_view tensor) const { return checkpoint_->at(tensor); }

}  // namespace nibble
