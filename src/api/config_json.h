// The public quantization configs as Transformers writes them, and the checks of their fields.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "nibble/config.h"

namespace nibble {

/// "GPTQConfig".
std::string_view class_name(const QuantizationConfig& config);

/// The fields of `config` with the keys of Transformers; a field that is not set is null. Dataset and tokenizer are
/// left out, and what is nibble's own.
Json config_json(const QuantizationConfig& config);

/// Keys that from_pretrained may give for a checkpoint that is quantized already.
std::span<const std::string_view> loading_attributes(const QuantizationConfig& config);

/// Throws Error(bad_input), beginning with class and field, where Transformers refuses a value, and where nibble does.
void check_config(const QuantizationConfig& config);

}  // namespace nibble
