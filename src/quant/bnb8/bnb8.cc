#include <array>

#include "quant/bnb8/bnb8.h"

#include <algorithm>

#include "layout/rows8/llm_int8.h"
#include "layout/rows8/rows8.h"
#include "quant/common/module_tensors.h"

namespace nibble::bnb8 {
namespace {

using quant::wrong_kind;
using quant::wrong_tensor;

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() > end.size() && name.substr(name.size() - end.size()) == end;
}

/// The module that owns a tensor of the format, or "".
std::string_view module_of(const TensorEntry& entry) {
  const std::string_view name = entry.name;
  for (const std::string_view end : {".SCB", ".weight_format"}) {
    if (ends_with(name, end)) return name.substr(0, name.size() - end.size());
  }
  if (ends_with(name, ".weight") && entry.view.dtype() == DType::i8) return name.substr(0, name.size() - 7);
  return {};
}

bool claims(const Checkpoint& checkpoint) {
  if (const Json* config = bnb::find_config(checkpoint); config != nullptr) {
    const Json* eight = config->get("load_in_8bit");
    const Json* four = config->get("load_in_4bit");
    const auto is_true = [](const Json* flag) { return flag != nullptr && flag->is_bool() && flag->boolean(""); };
    return is_true(eight) && !is_true(four);
  }
  if (bnb::has_any_config(checkpoint)) return false;
  const auto tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const TensorEntry& entry) { return ends_with(entry.name, ".SCB"); });
}

std::unique_ptr<SchemeReader> open(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<Reader>(std::move(checkpoint));
}

std::vector<StoredTensor> store_copies(const std::string& module, const LinearWeights& linear, Exec&) {
  return quant::copies_of(store(module, linear));
}

constexpr std::array<SchemeForm, 1> kForms{{{"int8", 8, &rows8::kLayout}}};

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{
    "bnb8",        "bitsandbytes LLM.int8: int8 weights and inputs, outlier columns in floating point",
    &claims,       &open,
    &store_copies, kForms};

Reader::Reader(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {
  if (const Json* config = bnb::find_config(*checkpoint_); config != nullptr) {
    config_ = bnb::parse_config(*config, (checkpoint_->folder() / "config.json").string());
  } else {
    config_.load_in_8bit = true;
  }
  for (const TensorEntry& entry : checkpoint_->tensors()) {
    const std::string_view module = module_of(entry);
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
  Parts p;
  p.weight = &quant::need_tensor(*checkpoint_, module + ".weight");
  const View& weight = p.weight->view;
  if (weight.dtype() != DType::i8 || weight.rank() != 2) throw wrong_kind(*p.weight, "an i8 matrix");
  const std::int64_t rows = weight.dim(0);
  p.absmax = &quant::need_tensor(*checkpoint_, module + ".SCB", DType::f32, rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    if (const float value = p.absmax->view.at(r); value < 0) {
      throw wrong_tensor(*p.absmax, "row ", r, ": an absolute maximum of ", value);
    }
  }
  if (const TensorEntry* format = checkpoint_->find(module + ".weight_format"); format != nullptr) {
    if (format->view.dtype() != DType::u8 || format->view.count() != 1) throw wrong_kind(*format, "one u8");
    const int kind = static_cast<int>(format->view.at(0));
    if (kind != 0) {
      throw wrong_tensor(*format, kind,
                         " (col32, col_turing or col_ampere order of an old GPU version; only 0, row by "
                         "row, can be read)");
    }
  }
  quant::bias_of(*checkpoint_, module, rows);
  return p;
}

LinearWeights Reader::load(const std::string& module, LinearSize size, Exec&) const {
  const Parts p = parts(module);
  quant::check_size(*p.weight, p.weight->view.dim(0), p.weight->view.dim(1), size.rows, size.cols);
  LinearWeights linear;
  linear.weight = rows8::make_llm_int8(p.weight->view, p.absmax->view, config_.int8_threshold, checkpoint_->owner());
  linear.bias = quant::bias_of(*checkpoint_, module, linear.weight.rows);
  return linear;
}

std::string Reader::describe(std::string_view module) const {
  if (!has(module)) return {};
  std::string out = cat("LLM.int8, per row, outlier threshold ", config_.int8_threshold);
  if (config_.skip && config_.skip->matches(module))
    out += ", listed in llm_int8_skip_modules and quantized all the same";
  return out;
}

quant::StoredTensors store(const std::string& module, const LinearWeights& linear) {
  const QTensor& w = linear.weight;
  check(w.layout == &rows8::kLayout && rows8::is_llm_int8(w), "bnb8::store: another layout");
  const Tensor format({}, DType::u8);
  quant::StoredTensors out;
  out.push_back({module + ".weight", w.part[0], w.owner});
  out.push_back({module + ".SCB", w.part[1], w.owner});
  out.push_back({module + ".weight_format", format.view(), format.owner()});
  if (linear.bias) out.push_back({module + ".bias", *linear.bias, w.owner});
  return out;
}

}  // namespace nibble::bnb8
