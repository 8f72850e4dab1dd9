// nibble tokenize and detokenize as a script meets them.
#include <gtest/gtest.h>

#include <algorithm>

#include "support/test_support.h"

namespace nibble {
namespace {

test::Ran nibble_with(const std::string& arguments) {
  return test::run_command("'" + test::nibble_binary().string() + "' " + arguments);
}

std::string demo() { return "'" + test::source("models/demo").string() + "'"; }

TEST(TokenizeCommand, FilePromptAndStandardInputAgree) {
  test::TempDir folder;
  test::write_text(folder / "t.txt", "Once upon a time</s>");
  const test::Ran file = nibble_with("tokenize " + demo() + " -f '" + (folder / "t.txt").string() + "' --json");
  EXPECT_EQ(file.code, 0) << file.err;
  EXPECT_EQ(file.err, "");
  EXPECT_EQ(file.out.substr(0, 12), "{\"ids\": [0, ");
  EXPECT_EQ(file.out.substr(file.out.size() - 6), ", 1]}\n");
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p 'Once upon a time</s>' --json").out, file.out);
  const std::string piped =
      "printf '%s' 'Once upon a time</s>' | '" + test::nibble_binary().string() + "' tokenize " + demo();
  EXPECT_EQ(test::run_command(piped + " --json").out, file.out);
}

TEST(TokenizeCommand, Forms) {
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p '' --ids").out, "0\n");
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p '' --ids --no-special").out, "\n");
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p '' --json --no-special").out, "{\"ids\": []}\n");
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p '</s>' --no-special").out, "1\t</s>\n");
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p '</s>' --count").out, "2\n");
  EXPECT_NE(nibble_with("tokenize " + demo() + " -p '</s>' --ids --no-parse-special").out, "0 1\n");
}

TEST(DetokenizeCommand, RoundTrip) {
  const std::string text = "It's 10 o'clock,  日本 😀";
  const std::string nibble = "'" + test::nibble_binary().string() + "' ";
  const test::Ran back = test::run_command(nibble + "tokenize " + demo() + " -p \"" + text + "\" --json | " + nibble +
                                           "detokenize " + demo() + " --skip-special");
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.out, text);
  EXPECT_EQ(nibble_with("detokenize " + demo() + " 0 1").out, "<s></s>");
  EXPECT_EQ(nibble_with("detokenize " + demo() + " 0,1").out, "<s></s>");
}

TEST(TokenizeCommand, MistakesAreOneLineAndExitCode2) {
  test::TempDir folder;
  test::write_text(folder / "bad.txt", "abc\xff");
  test::write_text(folder / "ids.json", R"({"ids": [1, "x"]})");
  const std::string bad = (folder / "bad.txt").string(), ids = (folder / "ids.json").string();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"tokenize " + demo() + " -f '" + bad + "'", "bad.txt: not valid UTF-8 at byte 3"},
      {"tokenize " + demo() + " -f '" + bad + ".not'", "bad.txt.not"},
      {"tokenize '" + folder.path().string() + "' -p x", "no tokenizer here"},
      {"detokenize " + demo() + " 4096", "id 4096"},
      {"detokenize " + demo() + " 99999999999", "not an id"},
      {"detokenize " + demo() + " x", "not an id"},
      {"detokenize " + demo() + " -f '" + ids + "'", "ids.json"},
  };
  for (const auto& [arguments, says] : cases) {
    const test::Ran ran = nibble_with(arguments);
    EXPECT_EQ(ran.code, 2) << arguments;
    EXPECT_EQ(ran.out, "") << arguments;
    EXPECT_NE(ran.err.find(says), std::string::npos) << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  }
  EXPECT_EQ(nibble_with("tokenize").code, 2);
  EXPECT_EQ(nibble_with("tokenize " + demo() + " -p x -f y").code, 2);
}

}  // namespace
}  // namespace nibble
