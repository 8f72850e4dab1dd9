// The quantize command as a user meets it: results, refusals, full disks and kills.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "quant/scheme.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

std::string quantize(const std::string& arguments) {
  return "'" + test::nibble_binary().string() + "' quantize '" + test::source("models/demo").string() + "' " +
         arguments;
}

/// Whether `out` looks like a model to any reader.
bool has_entry_point(const fs::path& out) {
  return fs::exists(out / "model.safetensors") || fs::exists(out / "model.safetensors.index.json");
}

TEST(QuantizeCommand, PredictsWhatItThenDoes) {
  const test::TempDir temp;
  const std::string out = (temp / "out").string();
  const test::Ran dry = test::run_command(quantize("-o '" + out + "' --weights int4 --dry-run --json"));
  ASSERT_EQ(dry.code, 0) << dry.err;
  EXPECT_FALSE(fs::exists(out));
  const test::Ran ran = test::run_command(quantize("-o '" + out + "' --weights int4 --json -t 2"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json before = Json::parse(dry.out, "dry"), after = Json::parse(ran.out, "ran");
  for (const char* key : {"bytes", "new_bytes", "bits_per_weight", "quantized_parameters", "tensors", "notes"}) {
    EXPECT_EQ(*before.find(key), *after.find(key)) << key;
  }
  if (!kSanitized) {  // sanitizers hold memory of their own
    EXPECT_LE(after.find("peak_bytes")->integer("peak"), after.find("predicted_peak_bytes")->integer("predicted"));
  }
  const WeightStore written(Checkpoint::open(out));
  ASSERT_NE(written.scheme(), nullptr);
  EXPECT_EQ(written.reader()->describe("model.layers.0.mlp.up_proj"), "qint4, group_size 128, shift");
  EXPECT_FALSE(written.reader()->has("lm_head"));
  const test::Ran again = test::run_command(quantize("-o '" + out + "' --weights int8"));
  EXPECT_EQ(again.code, 2);
  EXPECT_NE(again.err.find("--force"), std::string::npos) << again.err;
  EXPECT_EQ(test::run_command(quantize("-o '" + out + "' --weights int8 --force --quantize-lm-head")).code, 0);
  EXPECT_TRUE(WeightStore(Checkpoint::open(out)).reader()->has("lm_head"));
}

TEST(QuantizeCommand, RefusesWrongArguments) {
  const test::TempDir temp;
  const std::string out = "-o '" + (temp / "out").string() + "' ";
  for (const char* wrong : {"--weights int3", "--weights int8 --optimizer hqq", "--weights int4 --optimizer absmax",
                            "--exclude nothing-like-this", "--activations int8", "--group-size 33", "--method gptqq",
                            "--dataset x.txt", "--max-shard-size 5XB", "--activations int8 --dataset /no/such/file"}) {
    const test::Ran ran = test::run_command(quantize(out + wrong));
    EXPECT_EQ(ran.code, 2) << wrong << ": " << ran.err;
    EXPECT_FALSE(ran.err.empty()) << wrong;
    EXPECT_FALSE(has_entry_point(temp / "out")) << wrong;
  }
  EXPECT_EQ(test::run_command(quantize("--weights int4")).code, 2) << "no folder to write";
}

TEST(QuantizeCommand, CalibratesActivations) {
  const test::TempDir temp;
  const test::Ran ran = test::run_command(
      quantize("-o '" + (temp / "out").string() + "' --weights int8 --activations int8 --dataset '" +
               test::source("models/demo/calibration_ids.json").string() + "' --samples 2 --seqlen 32"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const auto written = Checkpoint::open((temp / "out").string());
  int calibrated = 0;
  for (const TensorEntry& entry : written->tensors()) {
    if (entry.name.find(".input_scale") == std::string::npos) continue;
    EXPECT_GT(entry.view.at(0), 0) << entry.name;
    calibrated += entry.view.at(0) != 1 ? 1 : 0;
  }
  EXPECT_EQ(calibrated, 42);
  EXPECT_EQ(std::distance(fs::directory_iterator(temp.path()), fs::directory_iterator()), 1)
      << "nothing is left beside it";
}

TEST(QuantizeCommand, BitsandbytesUnderEveryName) {
  const test::TempDir temp;
  struct Case {
    const char *flags, *scheme, *describes;
  };
  for (const Case& c :
       {Case{"--method bnb-nf4", "bnb4", "nf4, blocksize 64"}, Case{"--load-in-4bit", "bnb4", "fp4, blocksize 64"},
        Case{"--load-in-4bit --bnb-4bit-quant-type nf4 --bnb-4bit-use-double-quant", "bnb4",
             "nf4, blocksize 64, double quantization"},
        Case{"--load-in-8bit --llm-int8-threshold 5", "bnb8", "outlier threshold 5"}}) {
    const std::string out = (temp / "out").string();
    const test::Ran ran = test::run_command(quantize("-o '" + out + "' --force " + c.flags));
    ASSERT_EQ(ran.code, 0) << c.flags << ": " << ran.err;
    const WeightStore written(Checkpoint::open(out));
    ASSERT_NE(written.scheme(), nullptr) << c.flags;
    EXPECT_EQ(written.scheme()->name, c.scheme) << c.flags;
    EXPECT_NE(written.reader()->describe("model.layers.5.mlp.down_proj").find(c.describes), std::string::npos)
        << written.reader()->describe("model.layers.5.mlp.down_proj");
    EXPECT_EQ(written.reader()->modules().size(), 42U);
  }
  for (const char* wrong : {"--load-in-8bit --load-in-4bit", "--method gptq --load-in-8bit",
                            "--method bnb-nf4 --blocksize 48", "--method llm-int8 --activations int8 --dataset x"}) {
    EXPECT_EQ(test::run_command(quantize("-o '" + (temp / "no").string() + "' " + wrong)).code, 2) << wrong;
  }
}

TEST(QuantizeCommand, Gptq) {
  const test::TempDir temp;
  const std::string out = "-o '" + (temp / "out").string() + "' --method gptq --include 'model.layers.0.*' ";
  const test::Ran ran =
      test::run_command(quantize(out + "--bits 4 --group-size 64 --dataset builtin --nsamples 2 --seqlen 32"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_NE(ran.out.find("64 tokens; that is little"), std::string::npos) << ran.out;
  const WeightStore written(Checkpoint::open((temp / "out").string()));
  ASSERT_NE(written.scheme(), nullptr);
  EXPECT_EQ(written.scheme()->name, "gptq");
  EXPECT_EQ(written.reader()->modules().size(), 7U);
  const std::string again = out + "--force ";
  for (const char* wrong : {"", "--dataset wikitext2", "--dataset /no/such/file", "--dataset builtin --group-size 48",
                            "--dataset builtin --bits 5", "--dataset builtin --damp 2"}) {
    const test::Ran refused = test::run_command(quantize(again + wrong));
    EXPECT_EQ(refused.code, 2) << wrong << ": " << refused.err;
    EXPECT_FALSE(refused.err.empty()) << wrong;
  }
}

double number_after(const std::string& text, const std::string& word) {
  const std::size_t at = text.find(word);
  return at == std::string::npos ? -1 : std::atof(text.c_str() + at + word.size());
}

TEST(QuantizeCommand, GptqFormatWithoutDataAndRefined) {
  const test::TempDir temp;
  const std::string out = "-o '" + (temp / "out").string() + "' --force --method gptq --bits 2 --group-size 64 ";
  const test::Ran nearest = test::run_command(quantize(out + "--algorithm rtn --asym"));
  ASSERT_EQ(nearest.code, 0) << nearest.err;
  const WeightStore written(Checkpoint::open((temp / "out").string()));
  ASSERT_NE(written.scheme(), nullptr);
  EXPECT_EQ(written.scheme()->name, "gptq");
  EXPECT_EQ(written.reader()->modules().size(), 42U);
  const test::Ran plain =
      test::run_command(quantize(out + "--algorithm rtn --asym --include 'model.layers.0.self_attn.*'"));
  const test::Ran searched =
      test::run_command(quantize(out + "--algorithm rtn --asym --mse 2.4 --include 'model.layers.0.self_attn.*'"));
  ASSERT_EQ(searched.code, 0) << searched.err;
  EXPECT_LT(number_after(searched.out, "error"), number_after(plain.out, "error"));
  const test::Ran refused = test::run_command(quantize(out + "--algorithm rtn --refine 2"));
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("--dataset"), std::string::npos) << refused.err;

  const std::string data = out + "--include 'model.layers.0.*' --dataset builtin --nsamples 4 --seqlen 64 ";
  const test::Ran one = test::run_command(quantize(data + "--refine 2 -t 1"));
  ASSERT_EQ(one.code, 0) << one.err;
  const std::string bytes = read_file(temp / "out" / "model.safetensors");
  ASSERT_EQ(test::run_command(quantize(data + "--refine 2 -t 2")).code, 0);
  EXPECT_TRUE(read_file(temp / "out" / "model.safetensors") == bytes);
  ASSERT_EQ(test::run_command(quantize(data + "-t 2")).code, 0);
  EXPECT_FALSE(read_file(temp / "out" / "model.safetensors") == bytes);
}

TEST(QuantizeCommand, MixedPrecisionByARecipe) {
  const test::TempDir temp;
  test::write_text(temp / "gptq.json",
                   R"({"model\\.layers\\.0\\.self_attn\\.[qkv]_proj": {"bits": 8, "group_size": 32},
                       ".*\\.o_proj": false, ".*\\.down_proj$": {"bits": 3, "sym": false, "desc_act": true},
                       "lm_head": {"bits": 8}})");
  const std::string recipe = "--module-recipe '" + (temp / "gptq.json").string() + "' --quantize-lm-head ";
  const std::string out = "-o '" + (temp / "out").string() + "' --force --method gptq --group-size 64 ";
  for (const char* how : {"--algorithm rtn -t 2",
                          "--dataset builtin --nsamples 2 --seqlen 64 -t 2 --include "
                          "'model.layers.0.*' --include lm_head"}) {
    const test::Ran ran = test::run_command(quantize(out + recipe + how));
    ASSERT_EQ(ran.code, 0) << how << ": " << ran.err;
    EXPECT_EQ(ran.out.find("vLLM"), std::string::npos) << "q, k and v go together: " << ran.out;
    const WeightStore written(Checkpoint::open((temp / "out").string()));
    const auto form = [&](const char* module) {
      const std::string text = written.reader()->describe(module);
      return text.substr(0, text.find(", zero points"));
    };
    EXPECT_EQ(form("model.layers.0.self_attn.k_proj"), "int8, group_size 32, sym");
    EXPECT_EQ(form("model.layers.0.mlp.up_proj"), "int4, group_size 64, sym");
    EXPECT_EQ(form("model.layers.0.mlp.down_proj").rfind("int3, group_size 64, asym, desc_act", 0), 0U);
    EXPECT_EQ(form("lm_head"), "int8, group_size 64, sym");
    EXPECT_FALSE(written.reader()->has("model.layers.0.self_attn.o_proj"));
  }
  const std::string bytes = read_file(temp / "out" / "model.safetensors");
  const Json told =
      Json::parse(Checkpoint::open((temp / "out").string())->metadata().find("nibble_recipe")->string(""), "recipe");
  EXPECT_EQ(*told.find("module-recipe"), Json::read(temp / "gptq.json")) << "what the file says, not its name";
  ASSERT_EQ(test::run_command(quantize(out + recipe +
                                       "--dataset builtin --nsamples 2 --seqlen 64 -t 1 --include "
                                       "'model.layers.0.*' --include lm_head"))
                .code,
            0);
  EXPECT_TRUE(read_file(temp / "out" / "model.safetensors") == bytes) << "whatever the number of threads";

  test::write_text(temp / "quanto.json", R"({".*\\.q_proj": {"weights": "int8"}, ".*\\.o_proj": "skip",
                                             ".*": {"weights": "int2"}})");
  const test::Ran quanto = test::run_command(quantize(
      "-o '" + (temp / "q").string() + "' --weights int4 --module-recipe '" + (temp / "quanto.json").string() + "'"));
  ASSERT_EQ(quanto.code, 0) << quanto.err;
  const WeightStore written(Checkpoint::open((temp / "q").string()));
  EXPECT_EQ(written.reader()->describe("model.layers.3.self_attn.q_proj"), "qint8, per row");
  EXPECT_EQ(written.reader()->describe("model.layers.3.self_attn.k_proj").rfind("qint2", 0), 0U);
  EXPECT_FALSE(written.reader()->has("model.layers.3.self_attn.o_proj"));
}

TEST(QuantizeCommand, SpreadsBitsOverTheModules) {
  const test::TempDir temp;
  test::write_text(temp / "recipe.json", R"({".*\\.down_proj$": {"bits": 4}, ".*\\.o_proj": {"group_size": 32}})");
  const std::string flags =
      " --method gptq --group-size 64 --dataset builtin --nsamples 2 --seqlen 64 --no-check-kl "
      "--include 'model.layers.[01].*' --json --module-recipe '" +
      (temp / "recipe.json").string() + "' ";
  const auto out = [&](const char* name) { return "-o '" + (temp / name).string() + "'" + flags; };
  const test::Ran dry = test::run_command(quantize(out("a") + "--target-bpw 3.3 --dry-run -t 1"));
  ASSERT_EQ(dry.code, 0) << dry.err;
  const test::Ran ran = test::run_command(quantize(out("a") + "--target-bpw 3.3 -t 2"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json planned = Json::parse(dry.out, "dry"), json = Json::parse(ran.out, "ran");
  EXPECT_EQ(*planned.find("chosen_bits"), *json.find("chosen_bits")) << "whatever the number of threads";
  EXPECT_EQ(json.find("chosen_bits")->object("bits").size(), 6U) << "qkv, o, gate and up of two blocks";
  EXPECT_LE(json.find("bits_per_weight")->number("bits"), 3.3);
  EXPECT_GT(json.find("bits_per_weight")->number("bits"), 3.1);
  const auto checkpoint = Checkpoint::open((temp / "a").string());
  const WeightStore written(checkpoint);
  for (const auto& [unit, bits] : json.find("chosen_bits")->object("bits")) {
    const bool o_proj = unit.ends_with("o_proj");
    std::string module = unit;
    if (unit.ends_with("qkv_proj")) module.replace(unit.size() - 8, 8, "k_proj");
    if (unit.ends_with("gate_up_proj")) module.replace(unit.size() - 12, 12, "up_proj");
    EXPECT_EQ(written.reader()->describe(module).rfind(
                  "int" + bits.dump() + ", group_size " + (o_proj ? "32" : "64") + ", sym", 0),
              0U)
        << module;
  }
  EXPECT_EQ(written.reader()->describe("model.layers.1.mlp.down_proj").rfind("int4", 0), 0U) << "the recipe's";
  const Json told = Json::parse(checkpoint->metadata().find("nibble_recipe")->string(""), "recipe");
  EXPECT_EQ(*told.find("chosen-bits"), *json.find("chosen_bits"));
  for (const char* wrong : {"--target-bpw 2.3", "--target-bpw 3 --bits 4", "--target-bpw 3 --format awq",
                            "--target-bpw 3 --method quanto", "--target-bpw 0"}) {
    const test::Ran refused = test::run_command(quantize(out("b") + wrong));
    EXPECT_EQ(refused.code, 2) << wrong << ": " << refused.out;
    EXPECT_FALSE(has_entry_point(temp / "b")) << wrong;
  }
}

TEST(QuantizeCommand, RefusesRecipesThatCannotBeMeant) {
  const test::TempDir temp;
  const fs::path file = temp / "recipe.json";
  const auto refused = [&](const char* recipe, const std::string& flags) {
    test::write_text(file, recipe);
    const test::Ran ran = test::run_command(
        quantize("-o '" + (temp / "out").string() + "' --module-recipe '" + file.string() + "' " + flags));
    EXPECT_EQ(ran.code, 2) << recipe << ": " << ran.out;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    EXPECT_FALSE(has_entry_point(temp / "out")) << recipe;
    return ran.err;
  };
  const std::string gptq = "--method gptq --algorithm rtn ";
  EXPECT_NE(refused("{", gptq).find("recipe.json"), std::string::npos);
  EXPECT_NE(refused(R"({"(": {}})", gptq).find("pattern \"(\""), std::string::npos);
  EXPECT_NE(refused(R"({"(.+)+(.+)+(.+)+\\s": {}})", gptq).find("limit"), std::string::npos);
  EXPECT_NE(refused(R"({".*q_proj": {"bits": 5}})", gptq).find("5 bits"), std::string::npos);
  EXPECT_NE(refused(R"({".*q_proj": {"bit": 4}})", gptq).find("no setting \"bit\""), std::string::npos);
  EXPECT_NE(refused(R"({".*q_proj": {"group_size": 48}})", gptq).find("groups of 48"), std::string::npos);
  EXPECT_NE(refused(R"({"lm_head": {"bits": 8}})", gptq).find("decides about no module"), std::string::npos);
  EXPECT_NE(refused(R"({".*q_proj": {"bits": 8}})", "--weights int4").find("no setting"), std::string::npos);
  EXPECT_NE(refused(R"({".*q_proj": {"weights": "int3"}})", "--weights int4").find("unknown type"), std::string::npos);
  EXPECT_NE(refused(R"({".*q_proj": {"bits": 8}})", "--method bnb-nf4").find("only false"), std::string::npos);
  EXPECT_EQ(test::run_command(quantize("-o '" + (temp / "out").string() + "' --module-recipe /no/such/file")).code, 2);
  test::write_text(file, R"({".*q_proj": false})");
  const test::Ran kept = test::run_command(
      quantize("-o '" + (temp / "out").string() + "' --method bnb-nf4 --module-recipe '" + file.string() + "'"));
  ASSERT_EQ(kept.code, 0) << kept.err;
  EXPECT_FALSE(WeightStore(Checkpoint::open((temp / "out").string())).reader()->has("model.layers.0.self_attn.q_proj"));
}

TEST(QuantizeCommand, Aqlm) {
  const test::TempDir temp;
  const std::string flags = " --method aqlm --include 'model.layers.0.self_attn.*' --preset fast --seqlen 32 ";
  const auto out = [&](const char* name) { return "-o '" + (temp / name).string() + "'" + flags; };
  const test::Ran ran = test::run_command(quantize(out("a") + "--aqlm 2x6 --dataset builtin --nsamples 2 -t 1"));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const WeightStore written(Checkpoint::open((temp / "a").string()));
  ASSERT_NE(written.scheme(), nullptr);
  EXPECT_EQ(written.scheme()->name, "aqlm");
  EXPECT_EQ(written.reader()->modules().size(), 4U);
  EXPECT_EQ(written.reader()->describe("model.layers.0.self_attn.q_proj"), "2x6, in_group_size 8");
  ASSERT_EQ(test::run_command(quantize(out("b") + "--aqlm 2x6 --dataset builtin --nsamples 2 -t 3")).code, 0);
  EXPECT_EQ(read_file(temp / "a" / "model.safetensors"), read_file(temp / "b" / "model.safetensors"))
      << "whatever the number of threads";
  for (const char* wrong :
       {"", "--dataset builtin --aqlm 2x17", "--dataset builtin --aqlm 8", "--dataset /no/such/file",
        "--dataset builtin --preset slow", "--dataset builtin --in-group-size 12"}) {
    const test::Ran refused = test::run_command(quantize(out("c") + wrong));
    EXPECT_EQ(refused.code, 2) << wrong << ": " << refused.err;
    EXPECT_FALSE(refused.err.empty()) << wrong;
  }
}

TEST(QuantizeCommand, Awq) {
  const test::TempDir temp;
  const std::string out = "-o '" + (temp / "out").string() + "' --method awq --include 'model.layers.0.*' ";
  for (const char* flags :
       {"--awq-version gemv_fast --group-size 64", "--no-clip --no-duo-scaling --awq-loss output"}) {
    const test::Ran ran =
        test::run_command(quantize(out + "--force --dataset builtin --nsamples 2 --seqlen 32 " + flags));
    ASSERT_EQ(ran.code, 0) << flags << ": " << ran.err;
    EXPECT_NE(ran.out.find("64 tokens; that is little"), std::string::npos) << ran.out;
    EXPECT_NE(ran.out.find("of 3 inputs scaled"), std::string::npos) << "no factors before o: heads share values";
    const WeightStore written(Checkpoint::open((temp / "out").string()));
    ASSERT_NE(written.scheme(), nullptr);
    EXPECT_EQ(written.scheme()->name, "awq");
    EXPECT_EQ(written.reader()->modules().size(), 7U);
  }
  const std::string again = out + "--force ";
  for (const char* wrong : {"", "--dataset wikitext2", "--dataset /no/such/file", "--dataset builtin --group-size 48",
                            "--dataset builtin --awq-version marlin", "--dataset builtin --group-size 0"}) {
    const test::Ran refused = test::run_command(quantize(again + wrong));
    EXPECT_EQ(refused.code, 2) << wrong << ": " << refused.err;
    EXPECT_FALSE(refused.err.empty()) << wrong;
  }
}

TEST(QuantizeCommand, GptqsCodesInTheAwqFormat) {
  const test::TempDir temp;
  const std::string out = "-o '" + (temp / "out").string() +
                          "' --force --method gptq --format awq --asym --group-size 64 " +
                          "--include 'model.layers.0.*' ";
  const std::string data = out + "--dataset builtin --nsamples 4 --seqlen 64 ";
  for (const char* more :
       {"", "--refine 2 --float-inputs 0.5", "--algorithm rtn --awq-version gemv", "--desc-act --static-groups"}) {
    const test::Ran ran = test::run_command(quantize(data + more));
    ASSERT_EQ(ran.code, 0) << more << ": " << ran.err;
    const WeightStore written(Checkpoint::open((temp / "out").string()));
    ASSERT_NE(written.scheme(), nullptr);
    EXPECT_EQ(written.scheme()->name, "awq") << more;
    EXPECT_EQ(written.reader()->modules().size(), 7U);
  }
  EXPECT_EQ(test::run_command(quantize(out + "--algorithm rtn")).code, 0) << "needs no data";
  for (const char* wrong : {"--bits 3", "--desc-act", "--group-size 48"}) {
    const test::Ran refused = test::run_command(quantize(data + wrong));
    EXPECT_EQ(refused.code, 2) << wrong << ": " << refused.err;
  }
}

TEST(QuantizeCommand, AFullDiskLeavesNoModel) {
  const test::TempDir temp;
  const fs::path out = temp / "out";
  const test::Ran ran =
      test::run_command("ulimit -f 2000; " + quantize("-o '" + out.string() + "' --weights int8"));  // 2 MB of 9
  EXPECT_NE(ran.code, 0);
  EXPECT_FALSE(has_entry_point(out));
}

TEST(QuantizeCommand, KilledAtAnyPointItLeavesAWholeModelOrNone) {
  const test::TempDir temp;
  int complete = 0;
  for (int i = 0; i < 12; ++i) {
    const fs::path out = temp / ("out" + std::to_string(i));
    test::run_command("timeout -s KILL 0.0" + std::to_string(1 + 3 * i) + " " +
                      quantize("-o '" + out.string() + "' --weights int4 -t 2"));
    if (!has_entry_point(out)) continue;
    ++complete;
    const WeightStore written(Checkpoint::open(out.string()));
    ASSERT_NE(written.reader(), nullptr);
    EXPECT_EQ(written.reader()->modules().size(), 42U);
    for (const char* file : {"config.json", "tokenizer.json"}) EXPECT_TRUE(fs::exists(out / file)) << file;
  }
  EXPECT_LT(complete, 12) << "none was killed in time: nothing is tested";
  const fs::path first = temp / "out0";
  EXPECT_EQ(test::run_command(quantize("-o '" + first.string() + "' --weights int4 --force")).code, 0)
      << "starting over";
}

}  // namespace
}  // namespace nibble
