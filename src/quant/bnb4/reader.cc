#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "quant/bnb4/bnb4.h"
#include "quant/common/module_tensors.h"

namespace nibble::bnb4 {
namespace {

using quant::need_tensor;
using quant::wrong_kind;
using quant::wrong_tensor;

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kStatePrefix = "quant_state.bitsandbytes__";
constexpr std::int64_t kMaxStateBytes = 1 << 16;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

bool is_companion(std::string_view part) {
  return part == "absmax" || part == "quant_map" || part == "nested_absmax" || part == "nested_quant_map" ||
         part.find("quant_state") != std::string_view::npos;
}

/// The module that owns a tensor of the format, or "".
std::string_view module_of(const TensorEntry& entry) {
  const std::string_view name = entry.name;
  const bool integers = entry.view.dtype() == DType::u8 || entry.view.dtype() == DType::i8;
  if (name.size() > kWeight.size() && name.substr(name.size() - kWeight.size()) == kWeight) {
    return integers ? name.substr(0, name.size() - kWeight.size()) : std::string_view();
  }
  const std::size_t at = name.rfind(".weight.");
  if (at == std::string_view::npos || !is_companion(name.substr(at + 8))) return {};
  return name.substr(0, at);
}

/// Whether the file's table is the one that its quant_type means; the last bit may differ between library versions.
bool same_table(const View& file, const std::array<float, 16>& table) {
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (!(std::abs(file.at(static_cast<std::int64_t>(i)) - table[i]) <= 1e-6F)) return false;
  }
  return true;
}

/// bf16 [cols / block, rows] as the flat f32 blocks of the format.
Tensor transposed(const View& absmax) {
  const std::int64_t per_row = absmax.dim(0), rows = absmax.dim(1);
  Tensor flat({rows * per_row}, DType::f32);
  const std::span<float> out = flat.as<float>();
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t b = 0; b < per_row; ++b) out[static_cast<std::size_t>(r * per_row + b)] = absmax.at(b * rows + r);
  }
  return flat;
}

bool claims(const Checkpoint& checkpoint) {
  if (const Json* config = bnb::find_config(checkpoint); config != nullptr) {
    const Json* eight = config->get("load_in_8bit");
    const Json* four = config->get("load_in_4bit");
    const auto is_true = [](const Json* flag) { return flag != nullptr && flag->is_bool() && flag->boolean(""); };
    return !is_true(eight) || is_true(four);  // also the contradictions, which open() refuses
  }
  if (bnb::has_any_config(checkpoint)) return false;
  const auto tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [](const TensorEntry& entry) {
    return entry.name.find(cat(kWeight, ".", kStatePrefix)) != std::string::npos;
  });
}

std::unique_ptr<SchemeReader> open(std::shared_ptr<const Checkpoint> checkpoint) {
  return std::make_unique<Reader>(std::move(checkpoint));
}

std::vector<StoredTensor> store_copies(const std::string& module, const LinearWeights& linear, Exec&) {
  return quant::copies_of(store(module, linear));
}

constexpr std::array<SchemeForm, 2> kForms{{{"nf4", 4, &lut4::kLayout}, {"fp4", 4, &lut4::kLayout}}};

}  // namespace

extern const Scheme kScheme;
constexpr Scheme kScheme{"bnb4",        "bitsandbytes 4-bit: NF4 and FP4, blocks of 32 to 4096, nested scales",
                         &claims,       &open,
                         &store_copies, kForms};

Reader::Reader(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {
  if (const Json* config = bnb::find_config(*checkpoint_); config != nullptr) {
    config_ = bnb::parse_config(*config, (checkpoint_->folder() / "config.json").string());
  } else {
    config_.load_in_4bit = true;
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

QuantState Reader::state(const std::string& module) const {
  const TensorEntry* found = nullptr;
  for (const TensorEntry& entry : quant::tensors_below(*checkpoint_, module + ".weight.")) {
    const std::string_view part = std::string_view(entry.name).substr(module.size() + 8);
    if (!is_companion(part)) throw wrong_tensor(entry, "is no part of a bitsandbytes weight");
    if (part.find("quant_state") == std::string_view::npos) continue;
    if (part.substr(0, kStatePrefix.size()) != kStatePrefix)
      throw wrong_tensor(entry, "is no known kind of quant_state");
    if (found != nullptr) throw wrong_tensor(entry, "a second quant_state beside ", printable(found->name));
    found = &entry;
  }
  if (found == nullptr) {
    const TensorEntry* weight = checkpoint_->find(module + ".weight");
    if (weight == nullptr) weight = &quant::tensors_below(*checkpoint_, module + ".weight.").front();
    throw wrong_tensor(*weight, "its quant_state (", printable(module), ".weight.", kStatePrefix,
                       "nf4 or fp4) is missing");
  }
  const View& view = found->view;
  if (view.dtype() != DType::u8 || view.rank() != 1 || view.count() > kMaxStateBytes) {
    throw wrong_kind(*found, "the bytes of a JSON text");
  }
  const std::string_view text(reinterpret_cast<const char*>(view.data()), view.size_bytes());
  QuantState state = parse_state(text, cat(found->file.string(), ": tensor ", printable(found->name)));
  const std::string_view suffix = std::string_view(found->name).substr(module.size() + 8 + kStatePrefix.size());
  if (suffix != state.quant_type)
    throw wrong_tensor(*found, "its name and its quant_type ", state.quant_type, " disagree");
  if (config_.quant_type && *config_.quant_type != state.quant_type) {
    throw wrong_tensor(*found, "quant_type ", state.quant_type, ", but config.json says bnb_4bit_quant_type ",
                       *config_.quant_type);
  }
  return state;
}

void Reader::check_absmax(const std::string& module, Parts& p) const {
  const std::string weight = module + ".weight";
  const std::int64_t blocks = ceil_div(p.state.rows * p.state.cols, p.state.block);
  const TensorEntry* nested_absmax = checkpoint_->find(weight + ".nested_absmax");
  p.absmax = &need_tensor(*checkpoint_, weight + ".absmax");
  const View& absmax = p.absmax->view;
  if (p.state.nested) {
    if (absmax.dtype() != DType::u8 || absmax.count() != blocks) {
      throw wrong_kind(*p.absmax, blocks, " u8 codes, one per block of ", p.state.block);
    }
    const std::int64_t outer = ceil_div(blocks, p.state.nested->block);
    p.nested_absmax = need_tensor(*checkpoint_, weight + ".nested_absmax", DType::f32, outer).view;
    p.nested_map = need_tensor(*checkpoint_, weight + ".nested_quant_map", DType::f32, 256).view;
    return;
  }
  if (nested_absmax != nullptr)
    throw wrong_tensor(*nested_absmax, "is there, but the quant_state says nothing of nesting");
  p.repair = absmax.dtype() == DType::bf16 && absmax.rank() == 2 && p.state.cols % p.state.block == 0 &&
             absmax.dim(0) == p.state.cols / p.state.block && absmax.dim(1) == p.state.rows;
  if (!p.repair && (absmax.dtype() != DType::f32 || absmax.count() != blocks)) {
    throw wrong_kind(*p.absmax, blocks, " f32 maxima, one per block of ", p.state.block);
  }
}

Reader::Parts Reader::parts(const std::string& module) const {
  Parts p;
  p.state = state(module);
  p.weight = &need_tensor(*checkpoint_, module + ".weight");
  const View& weight = p.weight->view;
  const std::int64_t bytes = ceil_div(p.state.rows * p.state.cols, 2);
  if (static_cast<std::int64_t>(weight.size_bytes()) != bytes || !p.weight->raw_dtype.empty()) {
    throw wrong_kind(*p.weight, bytes, " bytes for the shape ", to_string({p.state.rows, p.state.cols}));
  }
  check_absmax(module, p);
  const TensorEntry& map = need_tensor(*checkpoint_, module + ".weight.quant_map", DType::f32, 16);
  if (!same_table(map.view, *table_of(p.state.quant_type))) {
    throw wrong_tensor(map, "is not the table of ", p.state.quant_type);
  }
  quant::bias_of(*checkpoint_, module, p.state.rows);
  return p;
}

LinearWeights Reader::load(const std::string& module, LinearSize size, Exec&) const {
  const Parts p = parts(module);
  quant::check_size(*p.weight, p.state.rows, p.state.cols, size.rows, size.cols);
  lut4::Source source;
  source.rows = p.state.rows;
  source.cols = p.state.cols;
  source.block = p.state.block;
  source.dtype = p.state.dtype;
  source.codes = p.weight->view;
  source.scale = p.absmax->view;
  source.table = table_of(p.state.quant_type);
  source.nested_scale = p.nested_absmax;
  source.nested_table = p.nested_map;
  source.nested = p.state.nested;
  source.owner = checkpoint_->owner();
  if (p.repair) {
    const Tensor flat = transposed(p.absmax->view);
    source.scale = flat.view();
    source.owner = std::make_shared<std::pair<std::shared_ptr<const void>, Tensor>>(source.owner, flat);
  }
  LinearWeights linear;
  linear.weight = lut4::make(source);
  linear.bias = quant::bias_of(*checkpoint_, module, p.state.rows);
  return linear;
}

std::string Reader::describe(std::string_view module) const {
  if (!has(module)) return {};
  const Parts p = parts(std::string(module));
  std::string out = cat(p.state.quant_type, ", blocksize ", p.state.block);
  if (p.state.nested) out += cat(", double quantization (blocks of ", p.state.nested->block, ")");
  if (p.weight->view.dtype() != DType::u8) out += cat(", quant_storage ", torch_name(p.weight->view.dtype()));
  out += cat(", compute ", torch_name(config_.compute_dtype));
  if (p.repair) out += ", absmax repaired (the file was saved after a forward pass)";
  if (config_.skip && config_.skip->matches(module))
    out += ", listed in llm_int8_skip_modules and quantized all the same";
  return out;
}

}  // namespace nibble::bnb4
