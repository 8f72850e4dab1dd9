#include "quant/requantize.h"

#include "base/error.h"
#include "quant/bnb_quantizer.h"
#include "quant/quanto/quantizer.h"

namespace nibble {
namespace {

quanto::ActivationScales scales_of(const Checkpoint& checkpoint, const std::string& module) {
  const auto scale = [&](const char* part) {
    const TensorEntry* entry = checkpoint.find(cat(module, ".", part));
    return entry != nullptr && entry->view.count() == 1 ? entry->view.at(0) : 1.0f;
  };
  return {scale("input_scale"), scale("output_scale")};
}

Requantizer requantize_quanto(const WeightStore& store, const quanto::Reader& reader) {
  const std::string where = store.checkpoint().folder().string();
  const std::vector<std::string> modules = reader.modules();
  if (modules.empty()) throw bad_input(where, ": no module is quantized");
  quanto::Config config;
  const quanto::MapEntry& first = reader.map().at(modules.front());
  config.activations = first.activations;
  config.weights.qtype = *first.weights;
  std::map<std::string, quanto::ActivationScales> scales;
  bool sized = false;
  for (const std::string& module : modules) {
    const quanto::MapEntry& entry = reader.map().at(module);
    if (entry.weights != first.weights || entry.activations != first.activations) {
      throw bad_input(where, ": module ", printable(module), " is quantized otherwise than ", modules.front(),
                      ": only checkpoints of one type are quantized again");
    }
    if (config.activations) scales[module] = scales_of(store.checkpoint(), module);
    if (sized || !quanto::is_packed(*entry.weights) || store.find(module + ".weight") != nullptr) continue;
    const quanto::ModuleParts parts = reader.parts(module, {});
    if (!parts.extent.grouped) continue;
    config.weights.group_size = parts.extent.group;
    config.weights.zero_point = parts.shift.dtype() == DType::u8;
    sized = true;
  }
  Requantizer out;
  out.quantizer = std::make_unique<quanto::Quantizer>(config, std::move(scales));
  out.selection.include = modules;
  return out;
}

Requantizer requantize_bnb(const WeightStore& store, const Json& json) {
  const bnb::Config config = bnb::parse_config(json, (store.checkpoint().folder() / "config.json").string());
  Requantizer out;
  out.quantizer = make_bnb_quantizer(config);
  out.selection.matrices_only = true;
  out.selection.include = store.reader()->modules();
  return out;
}

}  // namespace

Requantizer make_requantizer(const WeightStore& quantized) {
  const std::string where = quantized.checkpoint().folder().string();
  if (quantized.scheme() == nullptr) throw bad_input(where, ": is not quantized: there is nothing to quantize again");
  if (const auto* reader = dynamic_cast<const quanto::Reader*>(quantized.reader())) {
    return requantize_quanto(quantized, *reader);
  }
  if (const Json* config = bnb::find_config(quantized.checkpoint())) return requantize_bnb(quantized, *config);
  throw bad_input(where, ": ", quantized.scheme()->name,
                  " needs calibration data to quantize again: merge into floats, and quantize those");
}

}  // namespace nibble
