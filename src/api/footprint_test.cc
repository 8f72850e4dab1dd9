// get_memory_footprint(as_transformers) against the numbers of Transformers itself (tools/make_footprint_goldens.py).
#include <gtest/gtest.h>

#include "base/json.h"
#include "nibble/nibble.h"
#include "support/test_support.h"

namespace nibble {
namespace {

/// The options of an entry; nullopt when nibble cannot quantize so while loading.
std::optional<PretrainedOptions> options_of(const Json& entry) {
  PretrainedOptions options;
  options.threads = 1;
  if (const Json* dtype = entry.get("dtype")) options.torch_dtype = dtype->string("dtype");
  const Json* config = entry.get("config");
  if (config == nullptr) return options;
  const std::string& name = config->string("config");
  if (name == "quanto-int8") options.quantization_config = QuantoConfig{.weights = "int8"};
  if (name == "quanto-int4") options.quantization_config = QuantoConfig{.weights = "int4"};
  if (name == "8bit") options.load_in_8bit = true;
  if (name == "4bit") options.load_in_4bit = true;
  if (name == "nf4-double") {
    options.quantization_config =
        BitsAndBytesConfig{.load_in_4bit = true, .bnb_4bit_quant_type = "nf4", .bnb_4bit_use_double_quant = true};
  }
  return options;
}

TEST(Footprint, IsTheNumberOfTransformers) {
  const Json goldens = Json::read(test::data("footprints.json"));
  int seen = 0;
  for (const Json& entry : goldens.find("entries")->array("entries")) {
    const std::string& model = entry.find("model")->string("model");
    const auto options = options_of(entry);
    if (!options) continue;
    const PreTrainedModel loaded = AutoModelForCausalLM::from_pretrained(test::source(model).string(), *options);
    EXPECT_EQ(loaded.get_memory_footprint(true), entry.find("bytes")->integer("bytes")) << entry.dump();
    EXPECT_GT(loaded.get_memory_footprint(), 0);
    ++seen;
  }
  EXPECT_GT(seen, 60);
}

}  // namespace
}  // namespace nibble
