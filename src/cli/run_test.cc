// The commands run and logits, as programs, with the demo model.
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "support/test_support.h"

namespace nibble {
namespace {

using test::Ran;
using test::TempDir;

std::string quoted(const std::filesystem::path& path) { return "'" + path.string() + "'"; }

Ran nibble_on_demo(const std::string& command, const std::string& flags, const std::string& before = "") {
  return test::run_command(before + quoted(test::nibble_binary()) + " " + command + " " +
                           quoted(test::source("models/demo")) + " " + flags);
}

TEST(RunCommand, GreedyRepeats) {
  const std::string flags = "-p 'Once upon a time' -n 12 --greedy";
  const Ran a = nibble_on_demo("run", flags), b = nibble_on_demo("run", flags + " -t 1");
  EXPECT_EQ(a.code, 0) << a.err;
  EXPECT_GT(a.out.size(), 10u);
  EXPECT_EQ(a.out, b.out);
  EXPECT_NE(a.err.find("answer: 12 tokens"), std::string::npos) << a.err;
}

TEST(RunCommand, SamplingFollowsTheSeed) {
  const auto with = [](const std::string& seed) {
    return nibble_on_demo(
               "run", "-p Hello -n 16 --temp 1.2 --top-k 50 --top-p 0.9 --min-p 0.01 --repeat-penalty 1.1 -s " + seed)
        .out;
  };
  EXPECT_EQ(with("1"), with("1"));
  EXPECT_NE(with("1"), with("2"));
}

TEST(RunCommand, PromptsFromFileAndPipeAreTheSame) {
  TempDir dir;
  test::write_text(dir / "prompt.txt", "Once upon a time");
  const std::string flags = "-n 6 --greedy -q ";
  const Ran direct = nibble_on_demo("run", flags + "-p 'Once upon a time'");
  EXPECT_EQ(direct.code, 0);
  EXPECT_EQ(direct.err, "");
  EXPECT_EQ(nibble_on_demo("run", flags + "-f " + quoted(dir / "prompt.txt")).out, direct.out);
  EXPECT_EQ(nibble_on_demo("run", flags, "printf 'Once upon a time' | ").out, direct.out);
}

TEST(RunCommand, StopTextEndsTheAnswer) {
  const Ran all = nibble_on_demo("run", "-p 'Once upon a time' -n 20 --greedy --json");
  ASSERT_EQ(all.code, 0) << all.err;
  const std::string text = Json::parse(all.out, "json").get("text")->string("text");
  const std::string stop = text.substr(text.size() / 2, 3);
  const Ran cut = nibble_on_demo("run", "-p 'Once upon a time' -n 20 --greedy --json --stop '" + stop + "'");
  const Json json = Json::parse(cut.out, "json");
  EXPECT_EQ(json.get("text")->string("text"), text.substr(0, text.find(stop)));
  EXPECT_EQ(json.get("stop_reason")->string("reason"), "stop");
}

TEST(RunCommand, AnswersBadRequestsInOneLine) {
  const auto expect_error = [](const std::string& flags, const std::string& what, int code = 2) {
    const Ran ran = nibble_on_demo("run", flags, "printf '' | ");
    EXPECT_EQ(ran.code, code) << flags;
    EXPECT_NE(ran.err.find(what), std::string::npos) << ran.err;
    EXPECT_EQ(ran.out, "");
  };
  expect_error("-p 'one two three four five six' -c 3", "but the context holds 3");
  expect_error("-p x --temp -1", "temperature must be at least 0");
  expect_error("-p x --top-p 2", "top_p");
  expect_error("-p x --greedy --sample", "");
  expect_error("-f /nonexistent/file", "/nonexistent/file");
  const Ran missing = test::run_command(quoted(test::nibble_binary()) + " run /nonexistent/model -p x");
  EXPECT_EQ(missing.code, 2);
  EXPECT_NE(missing.err.find("/nonexistent/model"), std::string::npos);
}

TEST(LogitsCommand, WritesOneTensorPerSequence) {
  TempDir dir;
  test::write_text(dir / "ids.json", R"({"ids": [[0, 17, 300], [5]]})");
  const Ran ran =
      nibble_on_demo("logits", "--ids " + quoted(dir / "ids.json") + " --out " + quoted(dir / "out.safetensors"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto file = Checkpoint::open((dir / "out.safetensors").string());
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->at("logits.0").shape(), (Shape{3, 4096}));
  EXPECT_EQ(file->at("logits.1").shape(), (Shape{1, 4096}));
  EXPECT_EQ(file->at("logits.1").dtype(), DType::f32);
}

TEST(LogitsCommand, BadIdsLeaveNoFile) {
  TempDir dir;
  for (const char* ids : {"{}", R"({"ids": []})", R"({"ids": [[]]})", R"({"ids": [[4096]]})", R"({"ids": [[-1]]})",
                          R"({"ids": [["a"]]})", R"({"ids": 3})", "[1", ""}) {
    test::write_text(dir / "ids.json", ids);
    const Ran ran = nibble_on_demo("logits", "--ids " + quoted(dir / "ids.json") + " --out " + quoted(dir / "out"));
    EXPECT_EQ(ran.code, 2) << ids;
    EXPECT_NE(ran.err.find("ids.json"), std::string::npos) << ran.err;
    EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  }
}

}  // namespace
}  // namespace nibble
