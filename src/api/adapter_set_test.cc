// Adapters through the public API.
#include <gtest/gtest.h>

#include "nibble/nibble.h"
#include "support/test_support.h"

namespace nibble {
namespace {

TEST(PublicAdapters, LoadSetDisable) {
  PreTrainedModel model = AutoModelForCausalLM::from_pretrained(test::data("models/llama").string(),
                                                                {.torch_dtype = "float32", .threads = 1});
  const TokenIds ids{5, 17, 42, 9};
  const std::vector<float> base = model.logits(ids);
  EXPECT_EQ(model.load_adapter(test::data("adapters/llama-rslora").string()), "llama-rslora");
  const std::vector<float> first = model.logits(ids);
  EXPECT_NE(first, base);
  EXPECT_EQ(model.load_adapter(test::data("adapters/llama-dora").string(), 0.5, "d"), "d");
  EXPECT_EQ(model.active_adapters(), (std::vector<std::string>{"llama-rslora", "d"}));
  EXPECT_NE(model.logits(ids), first);
  model.set_adapter({"llama-rslora"});
  EXPECT_EQ(model.logits(ids), first);
  model.disable_adapters();
  EXPECT_EQ(model.logits(ids), base);
  EXPECT_TRUE(model.active_adapters().empty());
  model.enable_adapters();
  EXPECT_EQ(model.logits(ids), first);
  EXPECT_THROW(model.set_adapter({"x"}), Error);
  EXPECT_THROW(model.load_adapter(test::data("adapters/gpt2").string()), Error);
  EXPECT_EQ(model.active_adapters(), std::vector<std::string>{"llama-rslora"});
  EXPECT_EQ(model.logits(ids), first);
}

TEST(PublicAdapters, WholeTensorsComeAndGo) {
  PreTrainedModel model = AutoModelForCausalLM::from_pretrained(test::data("models/llama-v4-bias-tied").string(),
                                                                {.torch_dtype = "float32", .threads = 1});
  const TokenIds ids{5, 17, 42, 9};
  const std::vector<float> base = model.logits(ids);
  model.load_adapter(test::data("adapters/llama-saved").string());
  EXPECT_NE(model.logits(ids), base);
  model.disable_adapters();
  EXPECT_EQ(model.logits(ids), base);
  const test::TempDir dir;
  model.enable_adapters();
  model.save_pretrained((dir / "saved").string());
  EXPECT_EQ(AutoModelForCausalLM::from_pretrained((dir / "saved").string(), {.torch_dtype = "float32", .threads = 1})
                .logits(ids),
            base);
}

}  // namespace
}  // namespace nibble
