// nibble logits and nibble run on models that are no decoders.
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "run/generate.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::Ran;
using test::relative_error;

class Logits : public testing::Test {
 protected:
  fs::path model(const std::string& name) const { return test::data("models") / name; }
  std::shared_ptr<const Checkpoint> golden(const std::string& name) const {
    return Checkpoint::open((model(name) / "outputs.safetensors").string());
  }
  /// {"ids": [tensor.0, tensor.1]} of a golden file; more fields by the same rule.
  fs::path ids_file(const Checkpoint& from, const std::string& file,
                    const std::vector<std::pair<std::string, std::string>>& fields) {
    Json json = Json::Object{};
    for (const auto& [field, tensor] : fields) {
      Json::Array lists;
      for (int i = 0; i < 2; ++i) {
        Json::Array ids;
        for (const float id : from.at(tensor + "." + std::to_string(i)).to_f32()) ids.push_back(std::int64_t(id));
        lists.push_back(std::move(ids));
      }
      json.set(field, std::move(lists));
    }
    test::write_text(dir_ / file, json.dump());
    return dir_ / file;
  }
  Ran run(const std::string& name, const std::string& flags) {
    return test::run_command(test::nibble_binary().string() + " logits " + model(name).string() + " --dtype f32 -o " +
                             (dir_ / "out.safetensors").string() + " " + flags);
  }
  /// The output of the last run.
  std::shared_ptr<const Checkpoint> out() {
    out_ = Checkpoint::open((dir_ / "out.safetensors").string());
    return out_;
  }
  /// One line on standard error that has `part`, exit code 2.
  void expect_refused(const Ran& ran, const std::string& part) {
    EXPECT_EQ(ran.code, 2) << ran.err;
    EXPECT_NE(ran.err.find(part), std::string::npos) << ran.err;
    EXPECT_EQ(ran.err.find('\n'), ran.err.size() - 1) << ran.err;
  }
  test::TempDir dir_;
  std::shared_ptr<const Checkpoint> out_;  ///< keeps what is compared
};

TEST_F(Logits, OfAnEncoderDecoder) {
  const auto wanted = golden("t5");
  const std::string ids = ids_file(*wanted, "ids.json", {{"ids", "ids"}}).string();
  const std::string decoder_ids = ids_file(*wanted, "decoder.json", {{"ids", "decoder_ids"}}).string();
  const Ran ran = run("t5", "--ids " + ids + " --decoder-ids " + decoder_ids);
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(out()->tensors().size(), 2u);
  for (const std::string i : {"0", "1"}) {
    const View& got = out()->at("logits." + i);
    EXPECT_EQ(got.shape(), wanted->at("logits_f32." + i).shape());
    EXPECT_LT(relative_error(got.to_f32(), wanted->at("logits_f32." + i).to_f32()), 1e-4);
  }
  expect_refused(run("t5", "--ids " + ids), "T5ForConditionalGeneration needs --decoder-ids FILE");
  test::write_text(dir_ / "one.json", R"({"ids": [[1, 2]]})");
  expect_refused(run("t5", "--ids " + ids + " --decoder-ids " + (dir_ / "one.json").string()),
                 "one.json: field ids has 1 sequences, but");
  test::write_text(dir_ / "bad.json", R"({"ids": [[1, 96]]})");
  expect_refused(run("t5", "--ids " + ids + " --decoder-ids " + (dir_ / "bad.json").string()),
                 "bad.json: field ids: token id 96 is outside the model's vocabulary of 96");
  expect_refused(run("llama", "--ids " + ids + " --decoder-ids " + ids),
                 "LlamaForCausalLM has no use for --decoder-ids");
}

TEST_F(Logits, OfBert) {
  const auto wanted = golden("bert");
  const Ran ran =
      run("bert", "--ids " + ids_file(*wanted, "i", {{"ids", "ids"}, {"token_type_ids", "types"}}).string());
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(out()->tensors().size(), 4u);
  for (const std::string name : {"last_hidden_state", "pooler_output"}) {
    for (const std::string i : {".0", ".1"}) {
      const View& expected = wanted->at(name + "_f32" + i);
      EXPECT_EQ(out()->at(name + i).shape(), expected.shape());
      EXPECT_LT(relative_error(out()->at(name + i).to_f32(), expected.to_f32()), 1e-4);
    }
  }
  test::write_text(dir_ / "types.json", R"({"ids": [[1, 2]], "token_type_ids": [[0, 2]]})");
  expect_refused(run("bert", "--ids " + (dir_ / "types.json").string()),
                 "types.json: field token_type_ids: 2 is outside the model's token types of 2");
  test::write_text(dir_ / "few.json", R"({"ids": [[1, 2]], "token_type_ids": [[0]]})");
  expect_refused(run("bert", "--ids " + (dir_ / "few.json").string()), "sequence 0 has 1 types for 2 token ids");
  expect_refused(run("bert", "--pixels x"), "BertModel needs --ids FILE");
  expect_refused(run("bert", "--lora x --ids " + (dir_ / "few.json").string()), "--lora: adapters of models that give");
}

TEST_F(Logits, OfVit) {
  const std::string pixels = (model("vit") / "outputs.safetensors").string();
  const Ran ran = run("vit", "--pixels " + pixels);
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(out()->tensors().size(), 1u);
  EXPECT_EQ(out()->at("logits").shape(), (Shape{3, 5}));
  EXPECT_LT(relative_error(out()->at("logits").to_f32(), golden("vit")->at("logits_f32").to_f32()), 1e-4);

  ASSERT_EQ(run("vit-model", "--pixels " + (model("vit-model") / "outputs.safetensors").string()).code, 0);
  EXPECT_EQ(out()->tensors().size(), 6u);
  EXPECT_EQ(out()->at("last_hidden_state.2").shape(), (Shape{13, 48}));
  EXPECT_LT(relative_error(out()->at("pooler_output.1").to_f32(),
                           golden("vit-model")->at("pooler_output_f32").rows(1, 2).to_f32()),
            1e-4);

  expect_refused(
      run("vit-model", "--pixels " + pixels),
      "outputs.safetensors: tensor pixel_values has shape [3, 3, 12, 12], but ViTModel reads [images, 2, 12, "
      "20]");
  expect_refused(run("vit", "--pixels " + (model("vit") / "model.safetensors").string()),
                 "model.safetensors: tensor pixel_values is missing");
  expect_refused(run("vit", "--ids x"), "ViTForImageClassification has no use for --ids");
}

/// A tokenizer.json of T5's kind for 96 ids: <pad>, </s>, <unk>, then words of one letter.
Json letters_tokenizer() {
  Json::Array vocab{Json::Array{"<pad>", 0.0}, Json::Array{"</s>", 0.0}, Json::Array{"<unk>", 0.0}};
  for (int i = 3; i < 96; ++i) {
    const std::string letter(1, static_cast<char>(i < 29 ? 'a' + i - 3 : 'A' + (i - 29) % 26));
    std::string word = "\u2581";
    for (int n = 0; n <= (i - 3) / 26; ++n) word += letter;
    vocab.push_back(Json::Array{word, -1.0 - i});
  }
  Json json = Json::parse(R"({"version": "1.0", "normalizer": null,
    "added_tokens": [{"id": 0, "content": "<pad>", "special": true, "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false},
                     {"id": 1, "content": "</s>", "special": true, "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false}],
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
    "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true}})",
                          "tokenizer");
  json.set("model", Json::Object{{"type", "Unigram"}, {"unk_id", 2}, {"vocab", std::move(vocab)}});
  return json;
}

TEST_F(Logits, RunAnswersWithAT5) {
  const fs::path folder = dir_ / "t5";
  fs::create_directory(folder);
  for (const char* file : {"config.json", "model.safetensors"}) fs::copy_file(model("t5") / file, folder / file);
  test::write_text(folder / "tokenizer.json", letters_tokenizer().dump());
  const std::string command =
      test::nibble_binary().string() + " run " + folder.string() + " --dtype f32 -p 'a b c' -n 7 --ignore-eos";
  const Ran ran = test::run_command(command + " --json");
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json answer = Json::parse(ran.out, "answer");
  EXPECT_EQ(answer.find("prompt_tokens")->integer(""), 4);  // a b c </s>
  std::vector<std::int32_t> ids;
  for (const Json& id : answer.find("ids")->array("")) ids.push_back(static_cast<std::int32_t>(id.integer("")));

  ThreadPool pool(1);
  Arena arena;
  Exec exec{Target::cpu, pool, arena, DType::f32};
  const auto t5 = Model::load(Checkpoint::open(folder.string()), {}, exec);
  GenerateOptions options;
  options.decoder_start = 0;
  options.max_new_tokens = 7;
  const Generated expected =
      generate(*t5, Tokenizer::open(folder), std::vector<std::int32_t>{3, 4, 5, 1}, options, exec);
  EXPECT_EQ(ids, expected.ids);
  EXPECT_EQ(answer.find("text")->string(""), expected.text);
  EXPECT_FALSE(expected.text.empty());
  EXPECT_NE(expected.text.front(), ' ');
  EXPECT_EQ(test::run_command(command + " -q").out, expected.text + "\n");
  const Ran ppl = test::run_command(test::nibble_binary().string() + " perplexity " + folder.string() + " --ctx 8 -f " +
                                    (folder / "tokenizer.json").string());
  expect_refused(ppl, "T5ForConditionalGeneration is an encoder-decoder");
}

TEST_F(Logits, OtherCommandsSayWhatTheModelIs) {
  const std::string nibble = test::nibble_binary().string();
  expect_refused(test::run_command(nibble + " run " + model("bert").string() + " -p x"), "BertModel is an encoder");
  test::write_text(dir_ / "text", "1 2 3");
  expect_refused(test::run_command(nibble + " perplexity " + model("vit").string() + " -f " + (dir_ / "text").string()),
                 "ViTForImageClassification is an encoder");
}

}  // namespace
}  // namespace nibble
