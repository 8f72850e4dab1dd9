#include "base/json.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace nibble {
namespace {

Json parse(std::string_view text) { return Json::parse(text, "test"); }

std::string complaint(std::string_view text) {
  try {
    parse(text);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
}

TEST(Json, KeepsOrderTypesAndText) {
  const char* text = R"({"b": [1, -2, 2.5, true, null, "x"], "a": {"": []}, "big": 9223372036854775807})";
  const Json json = parse(text);
  EXPECT_EQ(json.dump(), text);
  EXPECT_EQ(parse(json.dump(2)), json);
  EXPECT_EQ(json.find("b")->array("")[0].integer(""), 1);
  EXPECT_TRUE(json.find("b")->array("")[2].is_number());
  EXPECT_FALSE(json.find("b")->array("")[2].is_integer());
  EXPECT_EQ(json.find("nothing"), nullptr);
  EXPECT_EQ(parse("{\"a\": null}").get("a"), nullptr);
  EXPECT_NE(parse("{\"a\": null}").find("a"), nullptr);
}

TEST(Json, WritesAsPythonDoes) {
  EXPECT_EQ(parse(R"({"a":[],"b":{},"c":[1,[2]]})").dump(2),
            "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    [\n      2\n    ]\n  ]\n}");
  // json.dumps([...]) of CPython for the same values.
  const Json doubles = Json::Array{0.1, 1e22, 1e-7, 1e16, 123456789012345.0, 1e-4, 9.999e-5, -0.0, 5e-324, 1e15, 3.0};
  EXPECT_EQ(doubles.dump(),
            "[0.1, 1e+22, 1e-07, 1e+16, 123456789012345.0, 0.0001, 9.999e-05, -0.0, 5e-324, 1000000000000000.0, 3.0]");
  const Json text = Json(std::string("\"\\\n\r\t\b\f\x01\x7f\xc3\xa9\xf0\x9f\x98\x80/"));
  EXPECT_EQ(text.dump(0, true), "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u007f\\u00e9\\ud83d\\ude00/\"");
  EXPECT_EQ(text.dump(0, false), "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\x7f\xc3\xa9\xf0\x9f\x98\x80/\"");
  EXPECT_EQ(parse(text.dump(0, true)), text);
  EXPECT_EQ(parse(text.dump(0, false)), text);
}

TEST(Json, IntegersBeyond64BitsBecomeDoubles) {
  const Json json =
      parse(R"({"model_max_length": 1000000000000000019884624838656, "s": "1000000000000000019884624838656",
                             "e": [18446744073709551615, -9223372036854775809, 9223372036854775807, 0.25, 1e3, 12345678901234567890123e2]})");
  EXPECT_EQ(json.find("model_max_length")->number(""), 1000000000000000019884624838656.0);
  EXPECT_EQ(json.find("s")->string(""), "1000000000000000019884624838656");
  const auto& e = json.find("e")->array("");
  EXPECT_EQ(e[0].number(""), 18446744073709551615.0);
  EXPECT_EQ(e[1].number(""), -9223372036854775809.0);
  EXPECT_EQ(e[2].integer(""), std::numeric_limits<std::int64_t>::max()) << "what fits stays exact";
  EXPECT_EQ(e[3].number(""), 0.25);
  EXPECT_EQ(e[5].number(""), 12345678901234567890123e2);
}

TEST(Json, RefusesWhatIsNotOneStrictDocument) {
  for (const char* bad : {"",
                          " ",
                          "{",
                          "[1,]",
                          "{\"a\":1,}",
                          "{a:1}",
                          "'a'",
                          "01",
                          "+1",
                          "1.",
                          ".5",
                          "NaN",
                          "Infinity",
                          "1e999",
                          "-1e999",
                          "tru",
                          "[1] 2",
                          "\"\\x\"",
                          "\"\\ud800\"",
                          "\"\x01\"",
                          "\"\xff\"",
                          "\"\xed\xa0\x80\"",
                          "\"\xc0\x80\"",
                          "\xef\xbb\xbf{}",
                          "/**/1"}) {
    const std::string message = complaint(bad);
    EXPECT_EQ(message.rfind("test: ", 0), 0U) << bad << " gave " << message;
  }
  EXPECT_NE(complaint("{\"a\": {\"b\": 1, \"b\": 2}}").find("duplicate key \"b\""), std::string::npos);
  EXPECT_NE(complaint("{\"a\\u0062\": 1, \"ab\": 2}").find("duplicate key"), std::string::npos) << "compared unescaped";
  std::string many = "{";
  for (int i = 0; i < 40; ++i) many += "\"" + std::to_string(i) + "\":0,";
  EXPECT_NE(complaint(many + "\"17\":0}").find("duplicate key \"17\""), std::string::npos);
  EXPECT_EQ(complaint(many + "\"x\":0}"), "");
  EXPECT_EQ(complaint(std::string(200, '[') + std::string(200, ']')), "");
  EXPECT_NE(complaint(std::string(100'000, '[') + std::string(100'000, ']')), "");
}

TEST(Json, TypeErrorsNameThePlace) {
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  const Json text("x"), half(0.5), whole(4.0);
  EXPECT_EQ(message([&] { text.integer("config.json: bits"); }),
            "config.json: bits: expected a whole number, found string");
  EXPECT_NE(message([&] { half.integer("f"); }), "");
  EXPECT_EQ(whole.integer("f"), 4);
  EXPECT_NE(message([&] { text.number("f"); }), "");
  EXPECT_NE(message([&] { text.boolean("f"); }), "");
  EXPECT_NE(message([&] { text.array("f"); }), "");
  EXPECT_NE(message([&] { text.object("f"); }), "");
  EXPECT_NE(message([&] { half.string("f"); }), "");
  EXPECT_THROW(Json(std::numeric_limits<double>::quiet_NaN()).dump(), Error);
}

TEST(Json, SetAndErase) {
  Json json;
  json.set("a", 1);
  json.set("b", 2);
  json.set("a", "new");
  EXPECT_EQ(json.dump(), R"({"a": "new", "b": 2})");
  EXPECT_TRUE(json.erase("a"));
  EXPECT_FALSE(json.erase("a"));
  EXPECT_EQ(json.dump(), R"({"b": 2})");
  EXPECT_THROW(Json(3).set("a", 1), Error);
}

}  // namespace
}  // namespace nibble
