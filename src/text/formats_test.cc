// Folders as people have them: tokenizer.model, vocab.json + merges.txt, what the config files add; and streaming.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "support/test_support.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

using Ids = std::vector<std::int32_t>;

Ids ids_of(const Json& list) {
  Ids ids;
  for (const Json& id : list.array("ids")) ids.push_back(static_cast<std::int32_t>(id.integer("id")));
  return ids;
}

/// A folder with the tiny sentencepiece model and a config.
class ModelFolder {
 public:
  explicit ModelFolder(const std::string& config) {
    test::write_text(folder_ / "tokenizer.model", test::read_text(test::data("tokenizers/tiny.model")));
    if (!config.empty()) test::write_text(folder_ / "tokenizer_config.json", config);
  }
  std::shared_ptr<const Tokenizer> open() const { return Tokenizer::open(folder_.path()); }

 private:
  test::TempDir folder_;
};

TEST(SentencePiece, AgreesWithTheLibrary) {
  const auto tokenizer = ModelFolder("").open();
  const Json goldens = Json::read(test::data("tokenizers/tiny_model.json"));
  const Json::Array& texts = goldens.find("texts")->array("texts");
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string& text = texts[i].string("text");
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(ids, ids_of(goldens.find("ids")->array("ids")[i])) << printable(text);
    if (text.find("▁") == std::string::npos && !text.starts_with(' ')) {
      EXPECT_EQ(tokenizer->decode(ids), text);
    }
  }
}

TEST(SentencePiece, SymbolsAndConfig) {
  const auto plain = ModelFolder("").open();
  EXPECT_FALSE(plain->adds_bos());
  EXPECT_EQ(plain->bos_id(), 1);
  EXPECT_EQ(plain->eos_id(), 2);
  const Ids symbols = plain->encode("<s>[INST]<user></s><unk>");
  EXPECT_EQ(symbols, (Ids{1, 3, 4, 2, 0}));
  EXPECT_TRUE(plain->is_special(3));
  EXPECT_FALSE(plain->is_special(4));
  EXPECT_EQ(plain->decode(symbols, true), "<user>");
  EXPECT_NE(plain->encode("<s>", {.parse_special = false}), (Ids{1}));

  const auto wrapped = ModelFolder(R"({"add_bos_token": true, "add_eos_token": true})").open();
  EXPECT_TRUE(wrapped->adds_bos());
  EXPECT_EQ(wrapped->encode(""), (Ids{1, 2}));

  const auto added = ModelFolder(R"({"added_tokens_decoder": {"999": {"content": "<more>", "special": true}}})").open();
  EXPECT_EQ(added->token_to_id("<more>"), static_cast<std::int32_t>(plain->vocab_size()));
}

/// After a special token the text goes on as after any other character, unless the config asks for the legacy way.
TEST(SentencePiece, LegacyPrefix) {
  const auto modern = ModelFolder("").open(), legacy = ModelFolder(R"({"legacy": true})").open();
  EXPECT_EQ(modern->encode("the"), legacy->encode("the"));
  const Ids bare = modern->encode("<s>the"), marked = legacy->encode("<s>the");
  EXPECT_NE(bare, marked);
  EXPECT_EQ(legacy->id_to_token(marked[1])->substr(0, 3), "▁");
  EXPECT_NE(modern->id_to_token(bare[1])->substr(0, 3), "▁");
}

TEST(SentencePiece, DamagedFilesAreErrors) {
  const std::string whole = test::read_text(test::data("tokenizers/tiny.model"));
  test::TempDir folder;
  const auto open = [&](const std::string& bytes) {
    test::write_text(folder / "tokenizer.model", bytes);
    try {
      Tokenizer::open(folder.path())->encode("the quick brown fox 日本");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
      return false;
    }
    return true;
  };
  EXPECT_TRUE(open(whole));
  EXPECT_FALSE(open(""));
  EXPECT_FALSE(open("no model at all"));
  EXPECT_FALSE(open("IQ== 0\nIg== 1\n"));  // tiktoken
  for (std::size_t size = 1; size < whole.size(); size += 37) open(whole.substr(0, size));
  Rng random(7);
  for (int round = 0; round < 200; ++round) {
    std::string changed = whole;
    for (int i = 0; i < 4; ++i) changed[random.next() % changed.size()] = static_cast<char>(random.next());
    open(changed);
  }
}

TEST(VocabAndMerges, Gpt2Files) {
  const Json demo = Json::read(test::source("models/demo/tokenizer.json"));
  const Json& model = *demo.find("model");
  test::TempDir folder;
  std::string merges = "#version: 0.2\n";
  for (const Json& pair : model.find("merges")->array("merges")) {
    merges += pair.array("pair")[0].string("left") + " " + pair.array("pair")[1].string("right") + "\r\n";
  }
  test::write_text(folder / "vocab.json", model.find("vocab")->dump());
  test::write_text(folder / "merges.txt", merges);
  test::write_text(folder / "tokenizer_config.json",
                   R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true})");
  const auto tokenizer = Tokenizer::open(folder.path());
  const auto reference = Tokenizer::open(test::source("models/demo"));
  for (const char* text : {"", "Once upon a time, there was", "<s> don't  stop</s>\n\n日本 😀"}) {
    EXPECT_EQ(tokenizer->encode(text), reference->encode(text)) << text;
  }
  test::write_text(folder / "merges.txt", "one\n");
  EXPECT_THROW(Tokenizer::open(folder.path()), Error);
  test::write_text(folder / "merges.txt", "\xff \xff\n");
  EXPECT_THROW(Tokenizer::open(folder.path()), Error);
}

TEST(TokenizerConfig, NamesSpecialTokens) {
  test::TempDir folder;
  test::write_text(folder / "tokenizer.json",
                   R"({"model": {"type": "BPE", "vocab": {"a": 0, "<x>": 1}, "merges": []}})");
  EXPECT_EQ(Tokenizer::open(folder.path())->bos_id(), std::nullopt);
  test::write_text(folder / "config.json", R"({"bos_token_id": 1, "eos_token_id": [0, 1]})");
  EXPECT_EQ(Tokenizer::open(folder.path())->bos_id(), 1);
  EXPECT_EQ(Tokenizer::open(folder.path())->eos_id(), 0);
  test::write_text(folder / "config.json", R"({"bos_token_id": 50256})");  // outside the vocabulary: real files have it
  EXPECT_EQ(Tokenizer::open(folder.path())->bos_id(), std::nullopt);
  // add_bos_token has no say when there is a tokenizer.json, as in Transformers 5.
  test::write_text(folder / "tokenizer_config.json",
                   R"({"bos_token": "<x>", "eos_token": {"content": "<new>"}, "add_bos_token": true})");
  const auto tokenizer = Tokenizer::open(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->encode("a<x>a<new>"), (Ids{0, 1, 0, 2}));
}

/// Any ids: pieces are whole characters and join to what decode() gives of all ids.
void check_random_streams(const std::shared_ptr<const Tokenizer>& tokenizer, std::uint64_t seed) {
  Rng random(seed);
  for (int round = 0; round < 200; ++round) {
    Ids ids(random.next() % 40);
    for (std::int32_t& id : ids) {
      do {
        // Low ids are special and byte tokens: half of all, so that broken characters are common.
        const std::uint64_t range = random.next() % 2 == 0 ? 300 : static_cast<std::uint64_t>(tokenizer->vocab_size());
        id = static_cast<std::int32_t>(random.next() % range);
      } while (!tokenizer->id_to_token(id));
    }
    for (const bool skip : {false, true}) {
      StreamDecoder stream(tokenizer, skip);
      std::string joined;
      for (const std::int32_t id : ids) {
        const std::string piece = stream.push(id);
        ASSERT_TRUE(utf8_valid(piece));
        joined += piece;
      }
      joined += stream.finish();
      ASSERT_EQ(joined, tokenizer->decode(ids, skip));
    }
  }
}

TEST(StreamDecoder, RandomIds) {
  check_random_streams(Tokenizer::open(test::source("models/demo")), 1);
  check_random_streams(ModelFolder("").open(), 2);
}

TEST(StreamDecoder, HoldsBackPartsOfCharacters) {
  const auto tokenizer = Tokenizer::open(test::source("models/demo"));
  const Ids ids = tokenizer->encode("é😀", {.add_special = false});
  ASSERT_GT(ids.size(), 2U);
  StreamDecoder whole(tokenizer), cut(tokenizer);
  std::string text;
  for (const std::int32_t id : ids) text += whole.push(id);
  EXPECT_EQ(text, "é😀");
  EXPECT_EQ(whole.finish(), "");
  cut.push(ids[0]);
  for (std::size_t i = 1; i + 1 < ids.size(); ++i) cut.push(ids[i]);
  EXPECT_EQ(cut.finish(), "\xef\xbf\xbd");
  EXPECT_EQ(cut.finish(), "");
}

}  // namespace
}  // namespace nibble
