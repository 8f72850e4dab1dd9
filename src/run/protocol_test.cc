#include "run/protocol.h"

#include <gtest/gtest.h>

#include "run/fake_test_models.h"

namespace nibble {
namespace {

using test::numbers;
using test::NumberTokenizer;
using Ids = std::vector<std::int32_t>;

NumberTokenizer with_bos() {
  NumberTokenizer tokenizer;
  tokenizer.bos = 90;
  tokenizer.eos = 91;
  tokenizer.add_bos = true;
  return tokenizer;
}

EvalPlan plan_of(const Tokenizer& tokenizer, Protocol protocol, int length, EvalOptions options = {}) {
  options.protocol = protocol;
  return plan_evaluation(document_of(numbers(0, length)), tokenizer, 64, options);
}

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    return error.what();
  }
  return "no error";
}

TEST(Protocol, NamesAndDefaultsAreThePublishedOnes) {
  EXPECT_EQ(protocol_info(Protocol::gptq).ctx, 2048);
  EXPECT_EQ(protocol_info(Protocol::llama_cpp).ctx, 512);
  EXPECT_EQ(protocol_info(Protocol::autogptq).ctx, 512);
  EXPECT_EQ(protocol_info(Protocol::hf_stride).ctx, 1024);
  EXPECT_EQ(protocol_info(Protocol::hf_stride).stride, 512);
  for (const ProtocolInfo& info : protocols()) EXPECT_EQ(protocol_from_name(info.name), info.protocol);
  EXPECT_FALSE(protocol_from_name("gpt"));
}

TEST(Protocol, GptqHasOneBosNoOverlapNoTail) {
  const auto tokenizer = with_bos();
  const EvalPlan plan = plan_of(tokenizer, Protocol::gptq, 10, {.ctx = 4});
  EXPECT_EQ(plan.tokens, 11);
  EXPECT_EQ(plan.bos, "once, before the text");
  ASSERT_EQ(plan.windows.size(), 2u);
  EXPECT_EQ(plan.windows[0].ids, (Ids{90, 0, 1, 2}));
  EXPECT_EQ(plan.windows[0].targets, (Ids{0, 1, 2}));
  EXPECT_EQ(plan.windows[1].ids, (Ids{3, 4, 5, 6}));
  EXPECT_EQ(plan.windows[1].first, 0);
  EXPECT_TRUE(tokenizer.seen.at(0).parse_special);
  EXPECT_EQ(plan_of(tokenizer, Protocol::gptq, 10, {.ctx = 4, .max_windows = 1}).windows.size(), 1u);
}

TEST(Protocol, LlamaCppReplacesFirstTokenAndScoresSecondHalf) {
  const auto tokenizer = with_bos();
  const EvalPlan plan = plan_of(tokenizer, Protocol::llama_cpp, 12, {.ctx = 6});
  ASSERT_EQ(plan.windows.size(), 2u);
  EXPECT_EQ(plan.windows[0].ids, (Ids{90, 0, 1, 2, 3, 4}));
  EXPECT_EQ(plan.windows[1].ids, (Ids{90, 6, 7, 8, 9, 10}));
  EXPECT_EQ(plan.windows[1].first, 3);
  EXPECT_EQ(plan.windows[1].targets, (Ids{9, 10}));
  EXPECT_FALSE(tokenizer.seen.at(0).parse_special);

  NumberTokenizer none;
  none.bos = 90;
  const EvalPlan without = plan_of(none, Protocol::llama_cpp, 12, {.ctx = 6});
  EXPECT_EQ(without.windows[1].ids, (Ids{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(without.bos, "none (the tokenizer adds none)");
}

TEST(Protocol, AutoGptqReplacesFirstTokenAlways) {
  NumberTokenizer tokenizer;
  tokenizer.bos = 90;
  const EvalPlan plan = plan_of(tokenizer, Protocol::autogptq, 12, {.ctx = 6});
  EXPECT_EQ(plan.windows[1].ids, (Ids{90, 7, 8, 9, 10, 11}));
  EXPECT_EQ(plan.windows[1].targets, (Ids{10, 11}));
  EXPECT_EQ(error_of([] { plan_of(NumberTokenizer(), Protocol::autogptq, 12, {.ctx = 6}); }),
            "protocol autogptq needs a BOS token, and the model's tokenizer has none");
}

TEST(Protocol, StridedWindowsScoreEveryTokenOnce) {
  const EvalPlan plan = plan_of(NumberTokenizer(), Protocol::hf_stride, 11, {.ctx = 6, .stride = 3});
  ASSERT_EQ(plan.windows.size(), 3u);
  EXPECT_EQ(plan.windows[0].ids, (Ids{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(plan.windows[0].targets, (Ids{1, 2, 3, 4, 5}));
  EXPECT_EQ(plan.windows[0].weight, 5);
  EXPECT_EQ(plan.windows[1].ids, (Ids{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(plan.windows[1].first, 2);
  EXPECT_EQ(plan.windows[1].targets, (Ids{6, 7, 8}));
  EXPECT_EQ(plan.windows[1].weight, 2);
  EXPECT_EQ(plan.windows[2].ids, (Ids{6, 7, 8, 9, 10}));
  EXPECT_EQ(plan.windows[2].targets, (Ids{9, 10}));
  EXPECT_EQ(plan_of(NumberTokenizer(), Protocol::hf_stride, 5, {.ctx = 6}).windows.size(), 1u);
}

TEST(Protocol, RollingWindowsPredictEveryTokenAfterAPrefix) {
  const auto tokenizer = with_bos();
  const EvalPlan plan = plan_of(tokenizer, Protocol::lm_eval, 10, {.ctx = 4});
  EXPECT_EQ(plan.tokens, 10);
  EXPECT_FALSE(tokenizer.seen.at(0).add_special);
  ASSERT_EQ(plan.windows.size(), 3u);
  EXPECT_EQ(plan.windows[0].ids, (Ids{90, 0, 1, 2}));
  EXPECT_EQ(plan.windows[0].targets, (Ids{0, 1, 2, 3}));
  EXPECT_EQ(plan.windows[1].ids, (Ids{3, 4, 5, 6}));
  EXPECT_EQ(plan.windows[1].targets, (Ids{4, 5, 6, 7}));
  EXPECT_EQ(plan.windows[2].ids, (Ids{5, 6, 7, 8}));
  EXPECT_EQ(plan.windows[2].first, 2);
  EXPECT_EQ(plan.windows[2].targets, (Ids{8, 9}));
  EXPECT_EQ(plan_of(tokenizer, Protocol::lm_eval, 10).ctx, 64);

  NumberTokenizer eos_only;
  eos_only.eos = 91;
  EXPECT_EQ(plan_of(eos_only, Protocol::lm_eval, 10, {.ctx = 4}).windows[0].ids[0], 91);
  EXPECT_NE(error_of([] { plan_of(NumberTokenizer(), Protocol::lm_eval, 10); }).find("neither"), std::string::npos);
}

TEST(Protocol, BadSizesAreOneClearError) {
  const NumberTokenizer tokenizer;
  EXPECT_EQ(
      error_of([&] { plan_of(tokenizer, Protocol::gptq, 10); }),
      "protocol gptq: a window of 2048 tokens is longer than the model's context of 64; choose a smaller one with "
      "--ctx");
  EXPECT_EQ(error_of([&] { plan_of(tokenizer, Protocol::gptq, 10, {.ctx = 20}); }),
            "protocol gptq: the text has 10 tokens, fewer than one window of 20; choose a smaller one with --ctx");
  EXPECT_EQ(error_of([&] { plan_of(tokenizer, Protocol::gptq, 10, {.ctx = 4, .stride = 2}); }),
            "protocol gptq has no stride");
  EXPECT_EQ(error_of([&] { plan_of(tokenizer, Protocol::hf_stride, 10, {.ctx = 4, .stride = 5}); }),
            "a stride of 5 tokens is longer than the window of 4");
  EXPECT_NE(error_of([&] { plan_of(tokenizer, Protocol::gptq, 10, {.ctx = 1}); }), "no error");
  EXPECT_NE(error_of([&] { plan_of(tokenizer, Protocol::gptq, 10, {.ctx = -4}); }), "no error");
}

TEST(EvalText, RowsAreJoinedAsEachProtocolDoes) {
  const std::vector<std::string> rows{"", " = A = \n", "", " text \n"};
  EXPECT_EQ(documents_of_rows(rows, RowJoin::blank_lines).at(0).text, "\n\n = A = \n\n\n\n\n text \n");
  EXPECT_EQ(documents_of_rows(rows, RowJoin::marked_empty).at(0).text, " \n = A = \n \n text \n");
  EXPECT_EQ(documents_of_rows(rows, RowJoin::documents).size(), 2u);
  const std::string raw = " \n = A = \n \n text \n";
  EXPECT_EQ(documents_of_wikitext(raw, RowJoin::as_file).at(0).text, raw);
  EXPECT_EQ(documents_of_wikitext(raw, RowJoin::blank_lines).at(0).text, "\n\n = A = \n\n\n\n\n text \n");
}

TEST(EvalText, PagesBeginAtTitlesAndAreDetokenized) {
  const std::string raw = " \n = One = \n \n = = Part = = \n \n A @-@ b , c ( d ) . \n \n = Two = \n it 's 3 @.@ 5 \n";
  const auto pages = documents_of_wikitext(raw, RowJoin::documents);
  ASSERT_EQ(pages.size(), 2u);
  EXPECT_EQ(pages[0].text, " = One =\n\n== Part ==\n\nA-b, c (d).\n");
  EXPECT_EQ(pages[1].text, " = Two =\nit's 3.5\n");
  EXPECT_EQ(pages[1].words, 10);
  EXPECT_EQ(pages[1].bytes, 26);
}

TEST(EvalText, WordsAreCountedAsPythonSplits) {
  EXPECT_EQ(count_words(""), 1);
  EXPECT_EQ(count_words("one"), 1);
  EXPECT_EQ(count_words(" one  two\n"), 4);
  EXPECT_EQ(count_words("a\xc2\xa0"
                        "b"),
            2);
}

}  // namespace
}  // namespace nibble
