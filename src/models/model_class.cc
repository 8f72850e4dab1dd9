#include "models/model_class.h"

#include <array>

#include "base/error.h"
#include "models/arch.h"

namespace nibble::models {
namespace {

constexpr std::array kOthers{
    ModelClass{"T5ForConditionalGeneration", "t5", ModelShape::encoder_decoder},
    ModelClass{"BertModel", "bert", ModelShape::text_encoder},
    ModelClass{"BertForMaskedLM", "bert", ModelShape::text_encoder},
    ModelClass{"ViTModel", "vit", ModelShape::image_encoder},
    ModelClass{"ViTForImageClassification", "vit", ModelShape::image_encoder},
};

const ModelClass* find_class(std::string_view hf_class) {
  for (const ModelClass& known : all_model_classes()) {
    if (known.hf_class == hf_class) return &known;
  }
  return nullptr;
}

const ModelClass* find_type(std::string_view model_type) {
  for (const ModelClass& known : all_model_classes()) {
    if (known.model_type == model_type) return &known;
  }
  return nullptr;
}

}  // namespace

std::span<const ModelClass> all_model_classes() {
  static const std::vector<ModelClass> all = [] {
    std::vector<ModelClass> list;
    for (const ArchSpec& arch : all_archs()) list.push_back({arch.hf_class, arch.model_type, ModelShape::decoder});
    list.insert(list.end(), kOthers.begin(), kOthers.end());
    return list;
  }();
  return all;
}

const ModelClass& model_class_of(const Json& config, std::string_view file) {
  if (config.is_null()) throw bad_input(file, " is missing");
  if (!config.is_object()) throw bad_input(file, ": expected a JSON object");
  const std::string where = std::string(file) + ": field architectures";
  std::string first;
  if (const Json* list = config.get("architectures")) {
    for (const Json& name : list->array(where)) {
      const std::string& text = name.string(where);
      if (const ModelClass* known = find_class(text)) return *known;
      if (first.empty()) first = text;
    }
  }
  if (first.empty()) {
    const Json* type = config.get("model_type");
    if (type != nullptr && type->is_string()) first = type->string(where);
    if (const ModelClass* known = find_type(first)) return *known;
    if (first.empty()) first = "(none named)";
  }
  const bool own_code = config.get("auto_map") != nullptr;
  std::string supported;
  for (const ModelClass& known : all_model_classes()) {
    supported += (supported.empty() ? "" : ", ") + std::string(known.hf_class);
  }
  throw bad_input(file, ": architecture ", printable(first), " is not supported",
                  own_code ? " (it comes with its own Python code, which nibble does not run)" : "", "; supported are ",
                  supported);
}

void require_shape(const Json& config, std::string_view file, ModelShape shape) {
  const ModelClass& found = model_class_of(config, file);
  if (found.shape == shape) return;
  static constexpr std::array<std::string_view, 4> kWhat{
      "a decoder, which continues token ids", "an encoder-decoder, which answers token ids",
      "an encoder, which gives hidden states of token ids", "an encoder of images, which takes pixels"};
  throw bad_input(file, ": ", found.hf_class, " is ", kWhat[static_cast<std::size_t>(found.shape)], ", not ",
                  kWhat[static_cast<std::size_t>(shape)]);
}

}  // namespace nibble::models
