// Bad tokenizer files and bad texts: each gives one error naming the place, or a result, in reasonable time and memory.
#include <gtest/gtest.h>

#include <chrono>

#include "base/error.h"
#include "base/json.h"
#include "support/test_support.h"
#include "text/pipeline_tokenizer.h"

namespace nibble {
namespace {

std::shared_ptr<const Tokenizer> parse(const std::string& json) {
  return text::read_tokenizer_json(Json::parse(json, "t.json"), "t.json", {});
}

/// The message of the error that a tokenizer.json gives; "" when it is accepted.
std::string refusal(const std::string& json) {
  try {
    parse(json);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
}

std::string bpe(const std::string& vocab, const std::string& merges, const std::string& more = "") {
  return R"({"model": {"type": "BPE", "vocab": )" + vocab + R"(, "merges": )" + merges + "}" + more + "}";
}

std::string with(const std::string& sections) {
  return bpe(R"({"a": 0, "b": 1, "ab": 2, " ": 3})", R"(["a b"])", ", " + sections);
}

struct Bad {
  const char* name;
  std::string json;
  const char* says;
};

TEST(HostileTokenizer, EachMistakeIsNamed) {
  const std::vector<Bad> cases = {
      {"no model", "{}", "no model"},
      {"not an object", "[]", "expected an object"},
      {"unknown model", R"({"model": {"type": "Magic", "vocab": {}}})", "unknown model type \"Magic\""},
      {"no vocab", R"({"model": {"type": "BPE", "merges": []}})", "no vocab"},
      {"huge id", bpe(R"({"a": 1099511627776})", "[]"), "id of \"a\""},
      {"negative id", bpe(R"({"a": -1})", "[]"), "id of \"a\""},
      {"text id", bpe(R"({"a": "0"})", "[]"), "id of \"a\""},
      {"same id twice", bpe(R"({"a": 0, "b": 0})", "[]"), "id 0 is given to both"},
      {"same id twice, sparse", bpe(R"({"a": 2000000000, "b": 2000000000})", "[]"), "is given to both"},
      {"same token twice", bpe(R"({"a": 0, "a": 1})", "[]"), "duplicate key"},
      {"merge of one", bpe(R"({"a": 0})", R"(["a"])"), "merges[0]"},
      {"merge of three", bpe(R"({"a": 0})", R"([["a", "a", "a"]])"), "merges[0]"},
      {"merge of numbers", bpe(R"({"a": 0})", R"([[0, 0]])"), "merges[0]"},
      {"merge part missing", bpe(R"({"a": 0})", R"(["a b"])"), "token \"b\" is not in the vocabulary"},
      {"merge result missing", bpe(R"({"a": 0, "b": 1})", R"(["a b"])"), "token \"ab\" is not in the vocabulary"},
      {"merge into itself", bpe(R"({"a": 0, "": 1})", R"([["a", ""]])"), "empty token"},
      {"no merges", R"({"model": {"type": "BPE", "vocab": {}}})", "no merges"},
      {"bad regex", with(R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Removed"})"),
       "regular expression"},
      {"bad behavior", with(R"("pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Eaten"})"),
       "behavior"},
      {"no pattern", with(R"("pre_tokenizer": {"type": "Split", "behavior": "Removed"})"), "no pattern"},
      {"unknown pre-tokenizer", with(R"("pre_tokenizer": {"type": "Magic"})"), "unknown pre_tokenizer type \"Magic\""},
      {"zero length", with(R"("pre_tokenizer": {"type": "FixedLength", "length": 0})"), "length"},
      {"unknown normalizer", with(R"("normalizer": {"type": "Sequence", "normalizers": [{"type": "X"}]})"),
       "unknown normalizer type \"X\""},
      {"charsmap not base64", with(R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"})"), "base64"},
      {"charsmap too short", with(R"("normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="})"),
       "character map"},
      {"unknown decoder", with(R"("decoder": {"type": "X"})"), "unknown decoder"},
      {"unknown post-processor", with(R"("post_processor": {"type": "X"})"), "unknown post_processor"},
      {"template without token",
       with(R"("post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]})"),
       "\"x\" is not in special_tokens"},
      {"template id out of range",
       with(
           R"("post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}], "special_tokens": {"x": {"ids": [1099511627776]}}})"),
       "out of range"},
      {"added token without content", with(R"("added_tokens": [{"id": 7}])"), "added_tokens[0]"},
      {"unigram pair", R"({"model": {"type": "Unigram", "vocab": [["a"]]}})", "vocab[0]"},
      {"unigram unk", R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 7}})", "unk_id"},
      {"unigram twice", R"({"model": {"type": "Unigram", "vocab": [["a", 0], ["a", 1]]}})", "second time"},
  };
  for (const Bad& bad : cases) {
    const std::string message = refusal(bad.json);
    EXPECT_NE(message.find(bad.says), std::string::npos) << bad.name << ": \"" << message << "\"";
  }
}

TEST(HostileTokenizer, OddButLegal) {
  EXPECT_EQ(refusal(bpe("{}", "[]")), "");
  EXPECT_EQ(parse(bpe("{}", "[]"))->encode("abc").size(), 0U);  // nothing can be written, as in the library
  const auto sparse = parse(bpe(R"({"a": 2147483646})", "[]"));
  EXPECT_EQ(sparse->encode("aa"), (std::vector<std::int32_t>{2147483646, 2147483646}));
  EXPECT_EQ(sparse->vocab_size(), std::int64_t{2147483647});
  EXPECT_EQ(sparse->id_to_token(5), std::nullopt);
  const auto cyclic =
      parse(bpe(R"({"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4})", R"(["a b", "b a", "ab a", "a ba"])"));
  EXPECT_EQ(cyclic->encode("ababa"), (std::vector<std::int32_t>{2, 4}));
}

TEST(HostileTokenizer, MissingUnknownTokenIsAnErrorWhenNeeded) {
  const auto bpe_tokenizer = parse(R"({"model": {"type": "BPE", "unk_token": "?", "vocab": {"a": 0}, "merges": []}})");
  EXPECT_EQ(bpe_tokenizer->encode("aa").size(), 2U);
  EXPECT_THROW(bpe_tokenizer->encode("b"), Error);
  const auto words = parse(R"({"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}}})");
  EXPECT_THROW(words->encode("b"), Error);
  const auto pieces = parse(R"({"model": {"type": "WordPiece", "unk_token": "?", "vocab": {"a": 0}}})");
  EXPECT_THROW(pieces->encode("b"), Error);
}

TEST(HostileText, InvalidUtf8NamesTheByte) {
  const auto tokenizer = Tokenizer::open(test::source("models/demo"));
  for (const auto& [text, at] : std::vector<std::pair<std::string, int>>{
           {"\xff", 0}, {"ab\xc3", 2}, {"a\xed\xa0\x80", 1}, {"abc\xf5\x80\x80\x80", 3}, {"\xc0\x80", 0}}) {
    try {
      tokenizer->encode(text);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input);
      EXPECT_NE(std::string(error.what()).find("at byte " + std::to_string(at)), std::string::npos) << error.what();
    }
  }
}

TEST(HostileText, UnknownIdsAreErrors) {
  const auto tokenizer = Tokenizer::open(test::source("models/demo"));
  for (const std::int32_t id : {-1, 4096, 2147483647}) {
    EXPECT_THROW(tokenizer->decode(std::vector<std::int32_t>{id}), Error) << id;
    EXPECT_EQ(tokenizer->id_to_token(id), std::nullopt);
    EXPECT_FALSE(tokenizer->is_special(id));
  }
}

TEST(HostileText, CatastrophicRegexIsAnError) {
  const auto tokenizer =
      parse(with(R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"})"));
  EXPECT_NO_THROW(tokenizer->encode("aaaa"));
  EXPECT_THROW(tokenizer->encode(std::string(5000, 'a') + "b"), Error);
}

double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text, bool check_round_trip) {
  const auto start = std::chrono::steady_clock::now();
  const auto ids = tokenizer.encode(text, {.add_special = false});
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (check_round_trip) {
    EXPECT_EQ(tokenizer.decode(ids, false), text);
  }
  return seconds;
}

std::string words(std::size_t bytes) {
  std::string text;
  for (std::uint32_t state = 1; text.size() < bytes;) {
    state = state * 1664525 + 1013904223;
    text.push_back(static_cast<char>('a' + (state >> 16) % 26));
  }
  return text;
}

/// Twice the text may take a little more than twice the time, never four times: what a quadratic step would.
void expect_linear(const Tokenizer& tokenizer, const std::string& half, bool round_trip) {
  double best = 1e9;
  for (int attempt = 0; attempt < 4 && best > 3.2; ++attempt) {  // a busy machine disturbs single measurements
    const double once = seconds_to_encode(tokenizer, half, round_trip);
    const double twice = seconds_to_encode(tokenizer, half + half, round_trip);
    best = std::min(best, twice / std::max(once, 0.02));
  }
  EXPECT_LT(best, 3.2) << printable(half, 20);
}

TEST(HostileText, LongRunsStayLinear) {
  const auto demo = Tokenizer::open(test::source("models/demo"));
  constexpr std::size_t half = 1 << 20;
  for (const std::string& text : {std::string(half, ' '), std::string(half, 'a'), std::string(half, '\n'), words(half),
                                  std::string(half, '\0'), std::string(half, '!')}) {
    expect_linear(*demo, text, true);
  }
}

TEST(HostileText, LongRunsStayLinearInEveryModel) {
  constexpr std::size_t half = 1 << 19;
  for (const char* name : {"bpe_metaspace", "bpe_affixes", "unigram", "wordpiece"}) {
    const Json file = Json::read(test::data(std::string("tokenizers/") + name + ".json"));
    const auto tokenizer = text::read_tokenizer_json(*file.find("base"), name, {});
    for (const std::string& text : {std::string(half, ' '), std::string(half, 'a'), words(half)}) {
      expect_linear(*tokenizer, text, false);
    }
  }
}

TEST(HostileTokenizer, ManyAddedTokens) {
  std::string list = R"("added_tokens": [)";
  for (int i = 0; i < 200'000; ++i) {
    if (i > 0) list += ",";
    list += R"({"id": 5, "content": "<t)" + std::to_string(i) + R"(>", "special": true})";
  }
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = parse(with(list + "]"));
  EXPECT_EQ(tokenizer->encode("ab<t199999>ab<t1><t12"), (std::vector<std::int32_t>{2, 200003, 2, 5}));
  EXPECT_EQ(tokenizer->vocab_size(), 200004);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 20);
}

TEST(HostileFolder, NamesWhatIsMissing) {
  test::TempDir folder;
  EXPECT_THROW(Tokenizer::open(folder.path()), Error);
  EXPECT_THROW(Tokenizer::open(folder / "nowhere"), Error);
  for (const char* content : {"", "{", "[1]", "\xff", "version https://git-lfs.github.com/spec/v1"}) {
    test::write_text(folder / "tokenizer.json", content);
    EXPECT_THROW(Tokenizer::open(folder.path()), Error) << content;
  }
  test::write_text(folder / "tokenizer.json", with(R"("added_tokens": [])"));
  EXPECT_NO_THROW(Tokenizer::open(folder.path()));
  test::write_text(folder / "tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "y"}}})");
  EXPECT_THROW(Tokenizer::open(folder.path()), Error);
  test::write_text(folder / "tokenizer_config.json", R"({"bos_token": 5})");
  EXPECT_THROW(Tokenizer::open(folder.path()), Error);
}

}  // namespace
}  // namespace nibble
