// nibble list, and the support matrix in docs.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"
#include "cli/support_matrix.h"
#include "quant/scheme.h"
#include "support/test_support.h"

namespace nibble {
namespace {

test::Ran list(const std::string& arguments) {
  return test::run_command("'" + test::nibble_binary().string() + "' list " + arguments);
}

TEST(List, TheSupportMatrixInDocsIsThatOfTheProgram) {
  const std::string committed = test::read_text(test::source("docs/support-matrix.md"));
  EXPECT_EQ(committed, cli::support_matrix_markdown()) << "run: nibble list matrix --markdown > docs/support-matrix.md";
  const test::Ran ran = list("matrix --markdown");
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.out, committed);
}

TEST(List, EverySchemeNamesItsForms) {
  for (const Scheme* scheme : all_schemes()) {
    EXPECT_FALSE(scheme->forms.empty()) << scheme->name;
    for (const SchemeForm& form : scheme->forms) {
      const auto layouts = all_layouts();
      EXPECT_NE(std::find(layouts.begin(), layouts.end(), form.layout), layouts.end()) << form.name;
    }
  }
}

TEST(List, PrintsJson) {
  const Json schemes = Json::parse(list("schemes --json").out, "schemes");
  ASSERT_EQ(schemes.array("").size(), all_schemes().size());
  EXPECT_EQ(schemes.array("")[0].find("scheme")->string(""), all_schemes()[0]->name);
  EXPECT_FALSE(Json::parse(list("models --json").out, "models").array("").empty());
  EXPECT_EQ(Json::parse(list("devices --json").out, "devices").array("").size(), kTargets);
  EXPECT_FALSE(Json::parse(list("matrix --json").out, "matrix").array("").empty());
}

TEST(List, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(list("colours").code, 2);
  EXPECT_EQ(list("").code, 2);
  EXPECT_EQ(list("schemes --json --markdown").code, 2);
}

}  // namespace
}  // namespace nibble
