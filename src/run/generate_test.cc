// generate() around a model that says one character after the other of a fixed text: the loop's own behaviour.
#include "run/generate.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "support/test_support.h"

namespace nibble {
namespace {

/// Token i is the ASCII character i.
std::shared_ptr<const Tokenizer> ascii_tokenizer() {
  Json::Object vocab;
  for (char c = ' '; c < 127; ++c) vocab.emplace_back(std::string(1, c), static_cast<std::int64_t>(c));
  const Json model = Json::Object{{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", Json::Array{}}};
  const Json json = Json::Object{{"version", "1.0"}, {"model", model}, {"decoder", Json::Object{{"type", "Fuse"}}}};
  test::TempDir dir;
  test::write_text(dir / "tokenizer.json", json.dump());
  return Tokenizer::open(dir.path());
}

/// After `prompt` tokens, says `text`, then '.' for ever.
class Parrot final : public Model {
 public:
  Parrot(std::string text, std::int64_t prompt, std::int64_t context) : text_(std::move(text)), prompt_(prompt) {
    info_.vocab_size = 128;
    info_.context_length = context;
  }
  const ModelInfo& info() const override { return info_; }
  std::int64_t open_sequence() override { return open_++, length_ = 0; }
  void close_sequence(std::int64_t) override { --open_; }
  std::int64_t sequence_length(std::int64_t) const override { return length_; }
  std::int64_t fork_sequence(std::int64_t, std::int64_t) override { return 0; }
  void truncate_sequence(std::int64_t, std::int64_t) override {}
  void forward(std::span<const BatchItem> items, std::vector<float>& logits, Exec&) override {
    length_ += static_cast<std::int64_t>(items[0].ids.size());
    EXPECT_LE(length_, info_.context_length);
    const auto at = static_cast<std::size_t>(length_ - prompt_);
    logits.assign(128, 0.0f);
    logits[static_cast<std::size_t>(at < text_.size() ? text_[at] : '.')] = 1;
  }
  int open_ = 0;

 private:
  std::string text_;
  std::int64_t prompt_, length_ = 0;
  ModelInfo info_;
};

struct Fixture {
  ThreadPool pool{1};
  Arena arena;
  Exec exec{Target::cpu, pool, arena};
  std::vector<std::int32_t> prompt{65, 66, 67};
  GenerateOptions options;
  std::string streamed;

  Generated run(const std::string& text, std::int64_t context = 100, bool with_tokenizer = true) {
    Parrot model(text, 3, context);
    streamed.clear();
    Generated out = generate(model, with_tokenizer ? ascii_tokenizer() : nullptr, prompt, options, exec,
                             [this](std::int32_t, std::string_view piece) {
                               streamed += piece;
                               return true;
                             });
    EXPECT_EQ(streamed, out.text);
    EXPECT_EQ(model.open_, 0);
    return out;
  }
};

TEST(Generate, StopsAtTheLimit) {
  Fixture f;
  f.options.max_new_tokens = 4;
  const Generated out = f.run("hello");
  EXPECT_EQ(out.text, "hell");
  EXPECT_EQ(out.reason, StopReason::length);
  EXPECT_EQ(out.ids.size(), 4u);
  EXPECT_EQ(out.prompt_tokens, 3);
}

TEST(Generate, StopsAtAnEndToken) {
  Fixture f;
  f.options.eos_ids = {'!', 'o'};
  const Generated out = f.run("hello world");
  EXPECT_EQ(out.reason, StopReason::eos);
  EXPECT_EQ(out.ids, (std::vector<std::int32_t>{'h', 'e', 'l', 'l', 'o'}));
}

TEST(Generate, StopTextNeverShows) {
  Fixture f;
  f.options.max_new_tokens = 30;
  f.options.stop = {"", "wor", "o wx", "END"};
  Generated out = f.run("hello world");
  EXPECT_EQ(out.text, "hello ");
  EXPECT_EQ(out.reason, StopReason::stop_text);
  f.options.stop = {"lo!"};  // "lo" is held back, then shown
  f.options.max_new_tokens = 5;
  out = f.run("hello world");
  EXPECT_EQ(out.text, "hello");
  EXPECT_EQ(out.reason, StopReason::length);
}

TEST(Generate, FillsTheContextAndStops) {
  Fixture f;
  const Generated out = f.run("hello", 6);
  EXPECT_EQ(out.reason, StopReason::context);
  EXPECT_EQ(out.ids.size(), 4u);  // positions 3, 4 and 5 were computed; the last token needs no position
}

TEST(Generate, PromptLongerThanTheContextNamesBothNumbers) {
  Fixture f;
  try {
    f.run("hello", 2);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the prompt has 3 tokens, but the context holds 2");
    EXPECT_EQ(error.exit_code(), 2);
  }
  f.prompt.clear();
  EXPECT_THROW(f.run("hello"), Error);
}

TEST(Generate, WorksWithoutTokenizer) {
  Fixture f;
  f.options.max_new_tokens = 2;
  const Generated out = f.run("hello", 100, false);
  EXPECT_EQ(out.text, "");
  EXPECT_EQ(out.ids.size(), 2u);
  f.options.stop = {"x"};
  EXPECT_THROW(f.run("hello", 100, false), Error);
}

TEST(Generate, CallerCanStop) {
  Parrot model("hello", 3, 100);
  Fixture f;
  const Generated out = generate(model, ascii_tokenizer(), f.prompt, {}, f.exec,
                                 [](std::int32_t id, std::string_view) { return id != 'e'; });
  EXPECT_EQ(out.reason, StopReason::caller);
  EXPECT_EQ(out.text, "he");
}

TEST(StopFilter, FindsTextAcrossPieces) {
  StopFilter filter({"\n\nUser:", "<|end|>"});
  std::string out;
  for (const char* piece : {"Hi <", "|", "e", "nd of it |> ", "\n", "\n", "Us", "er: secret"})
    out += filter.push(piece);
  out += filter.finish();
  EXPECT_EQ(out, "Hi <|end of it |> ");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("more"), "");
}

TEST(StopFilter, HoldsBackNoMoreThanNeeded) {
  StopFilter filter({"aab"});
  EXPECT_EQ(filter.push("xaaa"), "xa");
  EXPECT_EQ(filter.push("c"), "aac");
  EXPECT_EQ(filter.push("aa"), "");
  EXPECT_EQ(filter.finish(), "aa");
}

class GenerationConfig : public testing::Test {
 protected:
  GenerateOptions read(const std::string& generation, const std::string& config) {
    if (!generation.empty()) test::write_text(dir_ / "generation_config.json", generation);
    test::write_text(dir_ / "config.json", config);
    std::filesystem::copy_file(test::data("models/opt-bare/model.safetensors"), dir_ / "model.safetensors",
                               std::filesystem::copy_options::overwrite_existing);
    return default_generate_options(*Checkpoint::open(dir_.path().string()));
  }
  test::TempDir dir_;
};

TEST_F(GenerationConfig, ReadsBothFiles) {
  const GenerateOptions o = read(
      R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [128001, 128009], "max_new_tokens": 7})",
      R"({"eos_token_id": 5, "temperature": 0.1})");
  EXPECT_TRUE(o.sampling.do_sample);
  EXPECT_EQ(o.sampling.temperature, 0.6);
  EXPECT_EQ(o.sampling.top_p, 0.9);
  EXPECT_EQ(o.sampling.top_k, 50);
  EXPECT_EQ(o.eos_ids, (std::vector<std::int32_t>{128001, 128009}));
  EXPECT_EQ(o.max_new_tokens, 7);
}

TEST_F(GenerationConfig, FallsBackToTheModelsConfig) {
  const GenerateOptions o = read("", R"({"eos_token_id": 5, "top_k": 3})");
  EXPECT_FALSE(o.sampling.do_sample);
  EXPECT_EQ(o.sampling.top_k, 3);
  EXPECT_EQ(o.eos_ids, std::vector<std::int32_t>{5});
  EXPECT_TRUE(read(R"({"eos_token_id": null})", R"({"eos_token_id": -1})").eos_ids.empty());
}

TEST_F(GenerationConfig, NamesTheFieldThatIsWrong) {
  const auto message = [&](const std::string& text) {
    try {
      read(text, "{}");
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 2);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message(R"({"temperature": "hot"})").find("generation_config.json: field temperature"), std::string::npos);
  EXPECT_NE(message(R"({"top_p": 3})").find("field top_p"), std::string::npos);
  EXPECT_NE(message(R"({"eos_token_id": [1, 99999999999]})").find("field eos_token_id"), std::string::npos);
  EXPECT_NE(message(R"([1])").find("generation_config.json"), std::string::npos);
}

}  // namespace
}  // namespace nibble
