// Every component of tokenizer.json against answers of the real tokenizers library, made by
// tools/make_tokenizer_goldens.py; and llama.cpp's conformance vectors when ../shared is there.
#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "support/test_support.h"
#include "text/pipeline_tokenizer.h"

namespace nibble {
namespace {

using Ids = std::vector<std::int32_t>;

Ids ids_of(const Json& list) {
  Ids ids;
  for (const Json& id : list.array("ids")) ids.push_back(static_cast<std::int32_t>(id.integer("id")));
  return ids;
}

/// The text of a whole stream, checking that no piece splits a character.
std::string streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, bool skip) {
  StreamDecoder stream(tokenizer, skip);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string piece = stream.push(id);
    EXPECT_TRUE(utf8_valid(piece)) << "id " << id;
    text += piece;
  }
  return text + stream.finish();
}

void check_decode(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, const Json& want, bool skip,
                  const std::string& label) {
  if (want.is_null()) {  // the library itself fails
    EXPECT_NO_THROW(tokenizer->decode(ids, skip)) << label;
    return;
  }
  EXPECT_EQ(tokenizer->decode(ids, skip), want.string("text")) << label << " skip " << skip;
  EXPECT_EQ(streamed(tokenizer, ids, skip), want.string("text")) << label << " stream, skip " << skip;
}

void check_text(const std::shared_ptr<const Tokenizer>& tokenizer, const Json& test, std::size_t i,
                const std::string& text, const std::string& label) {
  const Json& ids = test.find("ids")->array(label)[i];
  const Json& plain = (test.find("plain") != nullptr ? test.find("plain") : test.find("ids"))->array(label)[i];
  if (ids.is_null()) {
    EXPECT_THROW(tokenizer->encode(text), Error) << label;
    return;
  }
  EXPECT_EQ(tokenizer->encode(text), ids_of(ids)) << label;
  EXPECT_EQ(tokenizer->encode(text, {.add_special = false}), ids_of(plain)) << label;
  const Json* decoded = test.find("decoded");
  if (decoded == nullptr) return;
  check_decode(tokenizer, ids_of(ids), decoded->array(label)[i], false, label);
  const Json* skipped = test.find("skipped");
  check_decode(tokenizer, ids_of(ids), (skipped != nullptr ? skipped : decoded)->array(label)[i], true, label);
}

void check_case(const Json& base, const Json& texts, const Json& test) {
  Json whole = base;
  for (const auto& [section, value] : test.find("set")->object("set")) whole.set(section, value);
  const std::string name = test.find("name")->string("name");
  const auto tokenizer = text::read_tokenizer_json(whole, name, {});
  const Json::Array& list = texts.array("texts");
  for (std::size_t i = 0; test.find("ids") != nullptr && i < list.size() && i < test.find("ids")->array("").size();
       ++i) {
    const std::string& text = list[i].string("text");
    check_text(tokenizer, test, i, text, name + ": \"" + printable(text) + "\"");
  }
  if (const Json* more = test.find("more")) {
    for (const Json& item : more->array("more")) {
      check_decode(tokenizer, ids_of(*item.find("ids")), *item.find("text"), false, name + " " + item.dump());
    }
  }
}

class Goldens : public testing::TestWithParam<const char*> {};

TEST_P(Goldens, AgreeWithTheLibrary) {
  const Json file = Json::read(test::data(std::string("tokenizers/") + GetParam() + ".json"));
  Json base = *file.find("base");
  if (base.is_null()) base = Json::read(test::source("models/demo/tokenizer.json"));
  ASSERT_FALSE(file.find("cases")->array("cases").empty());
  for (const Json& test : file.find("cases")->array("cases")) check_case(base, *file.find("texts"), test);
}

INSTANTIATE_TEST_SUITE_P(Files, Goldens,
                         testing::Values("bpe_byte_level", "bpe_metaspace", "bpe_affixes", "unigram", "steps",
                                         "wordpiece", "added_tokens", "decoders", "demo"),
                         [](const auto& info) { return std::string(info.param); });

/// llama.cpp's vectors: texts between marker lines, ids of each on one line, without BOS.
void check_vectors(const std::string& folder, const std::string& name) {
  NIBBLE_NEED_SHARED(models, "models");
  const auto tokenizer = Tokenizer::open(models / "tokenizers" / folder);
  const std::string stem = "ggml-vocab-" + name + ".gguf";
  const std::string input = test::read_text(models / "llamacpp-vocab" / (stem + ".inp"));
  std::istringstream output(test::read_text(models / "llamacpp-vocab" / (stem + ".out")));
  const std::string marker = "\n__ggml_vocab_test__\n";
  int count = 0;
  std::string line;
  for (std::size_t at = 0; at < input.size() && std::getline(output, line); ++count) {
    const std::size_t end = std::min(input.find(marker, at), input.size());
    const std::string text = input.substr(at, end - at);
    std::istringstream numbers(line);
    Ids want;
    for (std::int32_t id; numbers >> id;) want.push_back(id);
    const Ids got = tokenizer->encode(text, {.add_special = false});
    EXPECT_EQ(got, want) << folder << ": \"" << printable(text) << "\"";
    at = end + marker.size();
  }
  EXPECT_GE(count, 46) << folder;
}

TEST(LlamaCppVectors, Llama2) { check_vectors("llama2", "llama-spm"); }
TEST(LlamaCppVectors, Llama3) { check_vectors("llama3", "llama-bpe"); }
TEST(LlamaCppVectors, Qwen2) { check_vectors("qwen2", "qwen2"); }
TEST(LlamaCppVectors, Gpt2) { check_vectors("gpt2", "gpt-2"); }

}  // namespace
}  // namespace nibble
