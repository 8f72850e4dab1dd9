// Recipes of settings per module: what is read, what is refused, and which rule decides.
#include "quant/common/module_recipe.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/common/fused_units.h"
#include "support/scheme_checks.h"

namespace nibble {
namespace {

ModuleRecipe recipe(const char* text) { return parse_module_recipe(Json::parse(text, "r"), "r.json"); }

std::string refusal(const char* text) {
  return test::error_of([&] { recipe(text); });
}

TEST(ModuleRecipe, TheFirstMatchFromTheStartOfTheNameDecides) {
  const ModuleRecipe r = recipe(R"({"a\\.b": {"bits": 8}, "+:a": {"bits": 3}, "-:c": {}, "d$": false, "e": "skip",
                                    ".*z": {"bits": 2}})");
  const auto bits = [&](const char* module) {
    const RecipeRule* rule = r.find(module);
    return rule == nullptr ? -1 : rule->quantized ? rule->settings.find("bits")->integer("bits") : 0;
  };
  EXPECT_EQ(bits("a.b.c"), 8) << "a prefix is enough, as in Python's re.match";
  EXPECT_EQ(bits("a.c"), 3);
  EXPECT_EQ(bits("axb"), 3) << "the dot is escaped";
  EXPECT_EQ(bits("b.a"), -1) << "from the start of the name";
  EXPECT_EQ(bits("cz"), 0);
  EXPECT_EQ(bits("d"), 0);
  EXPECT_EQ(bits("dz"), 2);
  EXPECT_EQ(bits("e.z"), 0);
  EXPECT_TRUE(r.keeps("e.z"));
  EXPECT_FALSE(r.keeps("dz"));
  EXPECT_FALSE(r.keeps("nothing"));
}

TEST(ModuleRecipe, HostileOnesAreRefusedInOneLine) {
  for (const char* wrong :
       {"[]", "3", R"({"(": {}})", R"({"a": true})", R"({"a": 4})", R"({"a": "keep"})", R"({"a": null})",
        R"({"a": []})", R"({"-:a": 4})", R"({"[z-a]": false})", R"({"a{2,1}": {}})", R"({"(?P<x>a": {}})"}) {
    const std::string message = refusal(wrong);
    EXPECT_EQ(message.rfind("r.json: ", 0), 0U) << wrong << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_NE(refusal(R"({"(": {}})").find("pattern \"(\""), std::string::npos);
  EXPECT_EQ(refusal("{}"), "");
  EXPECT_THROW(recipe(R"({"a": {}, "a": {}})"), Error) << "one key twice: readers would differ";
}

TEST(ModuleRecipe, ACatastrophicPatternEndsInAnError) {
  const ModuleRecipe r = recipe(R"({"(a+)+$": {"bits": 8}})");
  const std::string name = std::string(60, 'a') + "!";
  try {
    r.find(name);
    FAIL() << "matched within the limit?";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.rfind("r.json: pattern \"(a+)+$\" on aaa", 0), 0U) << message;
    EXPECT_NE(message.find("limit"), std::string::npos) << message;
  }
}

TEST(FusedUnits, AreThoseOfInferenceEngines) {
  const std::vector<std::string> names{"l.0.self_attn.q_proj",
                                       "l.0.self_attn.k_proj",
                                       "l.0.self_attn.o_proj",
                                       "l.0.self_attn.v_proj",
                                       "l.0.mlp.up_proj",
                                       "l.1.mlp.gate_proj",
                                       "l.1.mlp.up_proj",
                                       "l.2.experts.0.w1",
                                       "l.2.experts.1.w1",
                                       "l.2.experts.gate",
                                       "lm_head"};
  const std::vector<FusedUnit> units = fused_units(names);
  ASSERT_EQ(units.size(), 7U);
  EXPECT_EQ(units[0].name, "l.0.self_attn.qkv_proj");
  EXPECT_EQ(units[0].modules, (std::vector<std::string>{names[0], names[1], names[3]}));
  EXPECT_EQ(units[1].name, names[2]);
  EXPECT_EQ(units[2].name, "l.0.mlp.up_proj") << "nothing to fuse it with";
  EXPECT_EQ(units[3].name, "l.1.mlp.gate_up_proj");
  EXPECT_EQ(units[4].name, "l.2.experts");
  EXPECT_EQ(units[5].name, "l.2.experts.gate") << "no expert";
  EXPECT_EQ(units[6].name, "lm_head");
  for (std::size_t i = 0; i < units.size(); ++i) {
    const Pattern pattern(pattern_of(units[i]), "test");
    EXPECT_TRUE(pattern.matches_start(units[i].name));
    for (std::size_t j = 0; j < units.size(); ++j) {
      for (const std::string& module : units[j].modules) {
        const bool below = i == 4 && j == 5;  // lies in the container of the experts
        EXPECT_EQ(pattern.matches_start(module), i == j || below) << pattern.text() << " on " << module;
      }
    }
  }
  EXPECT_EQ(pattern_of(units[0]), "^l\\.0\\.self_attn\\.(q_proj|k_proj|v_proj|qkv_proj)$");
}

}  // namespace
}  // namespace nibble
