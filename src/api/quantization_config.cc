#include "api/quantization_config.h"

#include <algorithm>
#include <array>

#include "api/config_json.h"
#include "api/edit_checkpoint.h"
#include "base/error.h"
#include "quant/common/quant_config.h"
#include "quant/scheme.h"

namespace nibble {
namespace {

/// Whether checkpoints of the scheme are what the config's class stands for.
bool same_method(const QuantizationConfig& config, std::string_view scheme) {
  if (std::holds_alternative<BitsAndBytesConfig>(config)) return scheme == "bnb4" || scheme == "bnb8";
  return config_json(config).find("quant_method")->string("quant_method") == scheme;
}

void check_method(const QuantizationConfig& config, const Checkpoint& checkpoint, std::string_view scheme) {
  if (!same_method(config, scheme)) {
    throw bad_input(checkpoint.folder().string(), ": the model is quantized with ", scheme,
                    ", but the config is of class ", class_name(config));
  }
  const auto* bnb = std::get_if<BitsAndBytesConfig>(&config);
  if (bnb == nullptr) return;
  if ((bnb->load_in_4bit && scheme == "bnb8") || (bnb->load_in_8bit && scheme == "bnb4")) {
    throw bad_input(checkpoint.folder().string(), ": the model is quantized to ", scheme == "bnb8" ? 8 : 4,
                    " bits, but load_in_", bnb->load_in_4bit ? 4 : 8, "bit was asked for");
  }
}

QuantizationConfig default_of(const QuantizationConfig& config) {
  return std::visit([](const auto& c) -> QuantizationConfig { return std::decay_t<decltype(c)>{}; }, config);
}

/// AWQ versions that are a choice of kernels over the same tensors.
bool is_gemm_order(std::string_view version) {
  static constexpr std::array<std::string_view, 4> names{"gemm", "exllama", "exllamav2", "ipex"};
  return std::find(names.begin(), names.end(), version) != names.end();
}

/// "version" of AWQ says how the tensors lie as well as which kernel runs: only the latter may be chosen.
bool may_override(std::string_view key, const Json& value, const QuantConfig& files, std::vector<std::string>& notes) {
  if (key != "version") return true;
  const std::string wanted = value.string("version");
  const std::string stored = files.text({"version", "format", "checkpoint_format"}).value_or("gemm");
  if (wanted == stored || wanted == "gemm") return false;  // "gemm" is also what nobody asked for
  if (is_gemm_order(wanted) && is_gemm_order(stored)) return true;
  notes.push_back(cat("AwqConfig.version: ", wanted, " is ignored; the files hold ", stored, ", which decides"));
  return false;
}

/// The edited JSON files of a quantized checkpoint: a key goes wherever it is, else into config.json.
class Overrides {
 public:
  explicit Overrides(const Checkpoint& checkpoint) : config_(checkpoint.config()) {
    if (const Json* declared = config_.get("quantization_config")) quantization_ = *declared;
    for (const char* name : {"quantize_config.json", "quant_config.json"}) {
      if (auto json = checkpoint.json_file(name)) files_.emplace_back(name, *std::move(json));
    }
  }

  void set(std::string_view key, const Json& value) {
    bool placed = false;
    for (auto& [name, json] : files_) {
      if (json.find(key) == nullptr) continue;
      json.set(key, value);
      changed_ = placed = true;
    }
    if (placed && quantization_.find(key) == nullptr) return;
    quantization_.set(key, value);
    changed_ = true;
  }

  /// A bitsandbytes checkpoint that is known by its tensors alone gets the config that it lacks.
  void complete(std::string_view scheme) {
    if (!quantization_.is_null() || (scheme != "bnb4" && scheme != "bnb8")) return;
    quantization_ = Json::Object{
        {"quant_method", "bitsandbytes"}, {"load_in_8bit", scheme == "bnb8"}, {"load_in_4bit", scheme == "bnb4"}};
  }

  bool changed() const { return changed_; }

  CheckpointParts apply(CheckpointParts parts) {
    if (!quantization_.is_null()) {
      config_.set("quantization_config", quantization_);
      parts.config = config_;
    }
    for (const auto& [name, json] : files_) parts.files[name] = json.dump(2) + "\n";
    return parts;
  }

 private:
  Json config_, quantization_;
  std::vector<std::pair<std::string, Json>> files_;
  bool changed_ = false;
};

}  // namespace

std::optional<QuantizationConfig> requested_config(const PretrainedOptions& options) {
  const bool by_flag = options.load_in_8bit || options.load_in_4bit;
  if (options.load_in_8bit && options.load_in_4bit)
    throw bad_input("load_in_8bit and load_in_4bit are both true; one at a time");
  if (by_flag && options.quantization_config) {
    throw bad_input("load_in_8bit and load_in_4bit cannot be passed beside quantization_config: set them in a ",
                    "BitsAndBytesConfig");
  }
  std::optional<QuantizationConfig> config = options.quantization_config;
  if (by_flag) config = BitsAndBytesConfig{.load_in_8bit = options.load_in_8bit, .load_in_4bit = options.load_in_4bit};
  if (config) check_config(*config);
  return config;
}

std::string_view claiming_scheme(const Checkpoint& checkpoint) {
  for (const Scheme* scheme : all_schemes()) {
    if (scheme->claims(checkpoint)) return scheme->name;
  }
  return {};
}

std::shared_ptr<const Checkpoint> with_loading_attributes(std::shared_ptr<const Checkpoint> checkpoint,
                                                          std::string_view scheme, const QuantizationConfig& config,
                                                          std::vector<std::string>& notes) {
  check_method(config, *checkpoint, scheme);
  const auto loading = loading_attributes(config);
  const Json wanted = config_json(config), usual = config_json(default_of(config));
  const QuantConfig files(*checkpoint);
  Overrides overrides(*checkpoint);
  overrides.complete(scheme);
  for (const auto& [key, value] : wanted.object("config")) {
    if (value.is_null() || key == "quant_method") continue;
    if (std::find(loading.begin(), loading.end(), key) != loading.end()) {
      if (may_override(key, value, files, notes)) overrides.set(key, value);
      continue;
    }
    const auto stored = files.find({key});
    if (value == *usual.find(key) || (stored && *stored->value == value)) continue;
    notes.push_back(cat(class_name(config), ".", key, ": ", printable(value.dump(), 60),
                        " is ignored; the checkpoint is quantized already"));
  }
  if (!overrides.changed()) return checkpoint;
  return Checkpoint::in_memory(overrides.apply(parts_of(checkpoint)));
}

}  // namespace nibble
