// Long quantization jobs as a user meets them: killed at any point, the same command goes on to the same bytes.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <sstream>

#include "base/file_lock.h"
#include "base/json.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// The demo model, by GPTQ unless `arguments` say otherwise.
std::string quantize(const fs::path& out, const std::string& arguments) {
  const bool has_data = arguments.find("--dataset") != std::string::npos;
  const bool has_method = arguments.find("--method") != std::string::npos;
  return "'" + test::nibble_binary().string() + "' quantize '" + test::source("models/demo").string() + "' -o '" +
         out.string() + "' --group-size 64 " + (has_method ? "" : "--method gptq ") +
         (arguments.find("--seqlen") == std::string::npos ? "--seqlen 32 " : "") +
         (has_data ? "" : "--dataset builtin ") + arguments;
}

/// The same result, file by file; does not print megabytes.
void expect_same_files(const fs::path& a, const fs::path& b, const std::string& what) {
  const auto x = test::files_of_result(a), y = test::files_of_result(b);
  EXPECT_EQ(x.size(), y.size()) << what;
  for (const auto& [name, content] : x) {
    const auto found = y.find(name);
    EXPECT_TRUE(found != y.end() && found->second == content) << what << ": " << name << " is another";
  }
}

/// Kills the job `kills` times, each time at a random point of its whole length, until it is left alone.
void kill_and_resume(int kills, const std::string& arguments) {
  const test::TempDir temp;
  const auto begin = std::chrono::steady_clock::now();
  const test::Ran whole = test::run_command(quantize(temp / "whole", arguments + " -t 2"));
  ASSERT_EQ(whole.code, 0) << whole.err;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Rng rng(5);
  int killed = 0, resumed = 0;
  for (int i = 0; i < kills; ++i) {
    const fs::path out = temp / ("out" + std::to_string(i));
    const double part = (i + static_cast<double>(rng.next() % 1000) / 1000) / kills;
    const test::Ran cut = test::run_command("timeout -s KILL " + std::to_string(0.01 + seconds * part) + " " +
                                            quantize(out, arguments + " -t 2"));
    if (cut.code != 0) ++killed;
    if (cut.code == 0) fs::remove_all(out);
    const test::Ran again = test::run_command(quantize(out, arguments + " -t 1"));
    // Killed when all was done: then the model is there, and is not replaced.
    const bool complete = again.code == 2 && again.err.find("is not empty") != std::string::npos;
    ASSERT_TRUE(again.code == 0 || complete) << "killed at " << part << ": " << again.err;
    if (again.out.find("resumed") != std::string::npos) ++resumed;
    expect_same_files(out, temp / "whole", "killed at " + std::to_string(part));
    EXPECT_TRUE(complete || !fs::exists(out.string() + ".quantize.partial")) << part;
  }
  EXPECT_GT(killed, 0) << "none was killed in time: nothing is tested";
  EXPECT_GT(resumed, 0) << "none had finished anything: nothing is tested";
}

TEST(QuantizeJob, KilledAtAnyPointItGoesOnToTheSameBytes) {
  kill_and_resume(3, "--nsamples 2 --include 'model.layers.[01].*' --no-check-kl");
}

TEST(QuantizeJob, KilledAwqGoesOnToTheSameBytes) {
  kill_and_resume(3, "--method awq --nsamples 2 --include 'model.layers.[0123].*' --no-check-kl");
}

TEST(LongQuantizeJob, KilledAtTwentyPointsItGoesOnToTheSameBytes) { kill_and_resume(20, "--nsamples 8 --no-check-kl"); }

TEST(LongQuantizeJob, AwqKilledAtTwentyPointsGoesOnToTheSameBytes) {
  kill_and_resume(20, "--method awq --nsamples 8 --no-check-kl");
}

TEST(QuantizeJob, LeavesALogAndItsRecipe) {
  const test::TempDir temp;
  const std::string arguments = "--nsamples 2 --include 'model.layers.0.mlp.*' --bits 3";
  const test::Ran ran = test::run_command(quantize(temp / "out", arguments));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const std::string log = test::read_text(temp / "out/quantize.jsonl");
  int lines = 0;
  for (std::size_t at = 0; at < log.size(); ++lines) {
    const std::size_t end = log.find('\n', at);
    const Json line = Json::parse(log.substr(at, end - at), "log");
    EXPECT_TRUE(line.find("module")->string("module").starts_with("model.layers.0.mlp.")) << line.dump();
    EXPECT_GT(line.find("loss")->number("loss"), 0);
    EXPECT_EQ(line.find("tokens")->integer("tokens"), 64);
    EXPECT_GT(line.find("rss_bytes")->integer("rss"), 1 << 20);
    at = end + 1;
  }
  EXPECT_EQ(lines, 3);
  const auto written = Checkpoint::open((temp / "out").string());
  const Json& metadata = written->metadata();
  EXPECT_EQ(metadata.find("format")->string(""), "pt");
  const Json recipe = Json::parse(metadata.find("nibble_recipe")->string(""), "recipe");
  EXPECT_EQ(recipe.find("bits")->string(""), "3");
  EXPECT_EQ(recipe.find("dataset"), nullptr) << "paths are left out";
  EXPECT_EQ(metadata.find("nibble_data")->string(""), "builtin: 2 sequences, 64 tokens");
  EXPECT_EQ(metadata.find("nibble_source_sha256")->string("").size(), 64U);
}

TEST(QuantizeJob, AwqLeavesALogAndItsRecipe) {
  const test::TempDir temp;
  const std::string arguments = "--method awq --nsamples 2 --include 'model.layers.[01].*' --no-duo-scaling";
  const test::Ran ran = test::run_command(quantize(temp / "out", arguments));
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_NE(ran.out.find("KL        0.0"), std::string::npos) << ran.out;
  EXPECT_FALSE(fs::exists(temp / "out.quantize.partial"));
  std::istringstream log(test::read_text(temp / "out/quantize.jsonl"));
  int lines = 0, searched = 0;
  for (std::string text; std::getline(log, text); ++lines) {
    const Json line = Json::parse(text, "log");
    EXPECT_TRUE(line.find("module")->string("module").starts_with("model.layers.")) << text;
    EXPECT_EQ(line.find("tokens")->integer("tokens"), 64);
    if (line.find("ratio") == nullptr) continue;
    EXPECT_LE(line.find("loss")->number("loss"), line.find("plain_loss")->number("plain_loss")) << text;
    ++searched;
  }
  EXPECT_EQ(lines, 14);
  EXPECT_EQ(searched, 12) << "there are fewer value heads than heads: o takes no factors";
  const Json metadata = Checkpoint::open((temp / "out").string())->metadata();
  const Json recipe = Json::parse(metadata.find("nibble_recipe")->string(""), "recipe");
  EXPECT_EQ(recipe.find("method")->string(""), "awq");
  EXPECT_EQ(metadata.find("nibble_data_sha256")->string("").size(), 64U);
  EXPECT_EQ(metadata.find("nibble_source_sha256")->string("").size(), 64U);
}

TEST(QuantizeJob, ComparesTheResultWithItsSource) {
  const test::TempDir temp;
  const std::string arguments = "--nsamples 1 --include 'model.layers.0.mlp.up_proj' --bits 8 ";
  const test::Ran good = test::run_command(quantize(temp / "out", arguments));
  ASSERT_EQ(good.code, 0) << good.err;
  EXPECT_NE(good.out.find("KL        0.0"), std::string::npos) << good.out;
  const test::Ran bad = test::run_command(quantize(temp / "out", arguments + "--force --max-kl 0"));
  EXPECT_EQ(bad.code, 1);
  EXPECT_NE(bad.err.find("--max-kl"), std::string::npos) << bad.err;
  EXPECT_TRUE(fs::exists(temp / "out/model.safetensors")) << "work of hours is not thrown away";
  const test::Ran off = test::run_command(quantize(temp / "out", arguments + "--force --no-check-kl"));
  EXPECT_EQ(off.code, 0);
  EXPECT_EQ(off.out.find("KL "), std::string::npos) << off.out;
  const test::Ran other =
      test::run_command("'" + test::nibble_binary().string() + "' quantize '" + test::source("models/demo").string() +
                        "' -o '" + (temp / "q").string() + "' --weights int8 --check-kl --json");
  ASSERT_EQ(other.code, 0) << other.err;
  const Json json = Json::parse(other.out, "json");
  EXPECT_GT(json.find("kl")->number("kl"), 0);
  EXPECT_LT(json.find("kl")->number("kl"), 0.05);
}

TEST(QuantizeJob, ADryRunPredictsAndWarns) {
  const test::TempDir temp;
  test::write_text(temp / "data.json", "{\"ids\": [[5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]]}");
  const std::string arguments = "--include 'model.layers.[01].*' --bits 8 --desc-act --dry-run --nsamples 2 --json ";
  const test::Ran ran = test::run_command(quantize(temp / "out", arguments));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json json = Json::parse(ran.out, "json");
  EXPECT_GT(json.find("predicted_seconds")->number("seconds"), 0);
  EXPECT_EQ(json.find("calibration_tokens")->integer("tokens"), 64);
  EXPECT_GT(json.find("predicted_disk_bytes")->integer("disk"), json.find("new_bytes")->integer("bytes"));
  EXPECT_EQ(json.find("warnings")->array("warnings").size(), 2U) << ran.out;
  EXPECT_FALSE(fs::exists(temp / "out.quantize.partial"));
  for (const char* loss : {"gram", "output"}) {
    const test::Ran awq =
        test::run_command(quantize(temp / "out", arguments + "--method awq --awq-loss " + std::string(loss)));
    ASSERT_EQ(awq.code, 0) << awq.err;
    EXPECT_GT(Json::parse(awq.out, "json").find("predicted_seconds")->number("seconds"), 0);
  }
  const test::Ran poor =
      test::run_command(quantize(temp / "out", arguments + "--dataset '" + (temp / "data.json").string() + "'"));
  ASSERT_EQ(poor.code, 0) << poor.err;
  EXPECT_NE(poor.out.find("only 1 different tokens"), std::string::npos) << poor.out;
  EXPECT_NE(poor.out.find("1 sequences of the 2 asked for"), std::string::npos) << poor.out;
}

/// Lowers --max-memory step by step: first less is remembered inside blocks, then activations go to the disk.
struct Squeezed {
  std::int64_t free = 0;     ///< peak without a limit
  std::int64_t bare = 0;     ///< with nothing remembered
  std::int64_t limit = 0;    ///< the highest at which activations go to the disk
  std::int64_t spilled = 0;  ///< peak then
};
Squeezed squeeze(const fs::path& out, const std::string& arguments) {
  const auto predicted = [&](const std::string& limit) {
    const test::Ran ran = test::run_command(quantize(out, arguments + "--dry-run --json --no-check-kl " + limit));
    EXPECT_EQ(ran.code, 0) << ran.err;
    const Json json = Json::parse(ran.out, "json");
    const bool disk =
        json.find("notes")->dump().find("activations between blocks lie on the disk") != std::string::npos;
    return std::pair(json.find("predicted_peak_bytes")->integer("peak"), disk);
  };
  Squeezed out_of;
  out_of.free = out_of.bare = predicted("").first;
  for (int step = 0; step < 4; ++step) {
    out_of.limit = out_of.bare - 1;
    const auto [peak, disk] = predicted("--max-memory " + std::to_string(out_of.limit));
    EXPECT_LE(peak, out_of.limit);
    if (disk) {
      out_of.spilled = peak;
      return out_of;
    }
    out_of.bare = peak;
  }
  ADD_FAILURE() << "activations never went to the disk";
  return out_of;
}

TEST(QuantizeJob, KeepsToALimitOfMemory) {
  const test::TempDir temp;
  const std::string include = "--include 'model.layers.[01].self_attn.*' ";
  const std::string arguments = "--nsamples 16 --seqlen 512 " + include;
  const Squeezed some = squeeze(temp / "out", arguments);
  EXPECT_EQ(some.bare, some.free - 4 * 16 * 512 * (256 + 768)) << "inputs of o and down are remembered";
  const test::Ran refused = test::run_command(
      quantize(temp / "out", arguments + "--dry-run --no-check-kl --max-memory " + std::to_string(some.spilled - 1)));
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("MiB are needed, with activations on the disk"), std::string::npos) << refused.err;

  for (const std::string method : {"gptq", "awq"}) {
    const std::string small = "--method " + method + " --nsamples 2 " + include;
    const Squeezed limits = squeeze(temp / "out", small);
    const auto run = [&](const std::string& name, const std::string& more) {
      const test::Ran ran = test::run_command(quantize(temp / (name + method), small + "--no-check-kl " + more));
      ASSERT_EQ(ran.code, 0) << ran.err;
    };
    run("free", "");
    run("bare", "--max-memory " + std::to_string(limits.bare));
    run("spilled", "--max-memory " + std::to_string(limits.limit));
    expect_same_files(temp / ("bare" + method), temp / ("free" + method), "nothing remembered");
    expect_same_files(temp / ("spilled" + method), temp / ("free" + method), "spilled");
  }
}

TEST(QuantizeJob, TwoWritersAndFullFolders) {
  const test::TempDir temp;
  const std::string arguments = "--nsamples 1 --include 'model.layers.0.mlp.up_proj'";
  fs::create_directories(temp / "out.quantize.partial");
  {
    const FileLock other(temp / "out.quantize.partial/lock");
    const test::Ran refused = test::run_command(quantize(temp / "out", arguments));
    EXPECT_EQ(refused.code, 2);
    EXPECT_NE(refused.err.find("another process is working there"), std::string::npos) << refused.err;
    EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;
  }
  EXPECT_EQ(test::run_command(quantize(temp / "out", arguments)).code, 0) << "the lock went with its holder";
  EXPECT_EQ(test::run_command(quantize(temp / "out", arguments)).code, 2) << "--force replaces a model";
  EXPECT_EQ(test::run_command(quantize(temp / "out", arguments + " --force --no-resume")).code, 0);
}

TEST(QuantizeJob, AFullDiskLosesNothingThatWasFinished) {
  const test::TempDir temp;
  const std::string arguments = "--nsamples 1 --include 'model.layers.[01].*'";
  const test::Ran ran = test::run_command("ulimit -f 3000; " + quantize(temp / "out", arguments));  // 3 MB of 11
  EXPECT_EQ(ran.code, 1) << ran.err;
  EXPECT_FALSE(fs::exists(temp / "out/model.safetensors"));
  const test::Ran again = test::run_command(quantize(temp / "out", arguments));
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("resumed   8 finished parts"), std::string::npos) << again.out;
}

}  // namespace
}  // namespace nibble
