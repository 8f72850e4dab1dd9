// Block by block over a whole model, with GPTQ: the statistics, the order of blocks, and checkpoints that are better
// than rounding.
#include "calib/block_quantizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "calib/dataset.h"
#include "calib/gram.h"
#include "quant/gptq/quantizer.h"
#include "quant/quantize_checkpoint.h"
#include "run/model.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using Sequences = std::vector<std::vector<std::int32_t>>;

using Machine = test::F32Machine;

Sequences sequences_of_demo(std::int64_t count, std::int64_t length) {
  return read_dataset(test::source("models/demo/calibration_ids.json"), test::source("models/demo"),
                      {.samples = count, .seqlen = length});
}

TEST(StatisticsCollector, SumsWhatLinearsSee) {
  Machine machine;
  StatisticsCollector collector({"q", "k", "o"}, machine.exec);
  const float x[] = {1, 2, 3, -4}, z[] = {5, 6};
  for (int pass = 0; pass < 2; ++pass) {
    for (const char* name : {"q", "k", "other"}) collector.linear_input(name, x, 2, 2);
    collector.linear_output("q", x, 2, 2);
    collector.linear_input("o", z, 1, 2);
    collector.linear_output("o", z, 1, 2);
  }
  const InputStatistics* q = collector.find("q");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q, collector.find("k")) << "one input, one matrix";
  EXPECT_EQ(collector.find("other"), nullptr);
  EXPECT_EQ(q->tokens, 4);
  EXPECT_EQ(q->matrix(0.5, machine.pool), (std::vector<float>{10, -10, -10, 20}));
  EXPECT_EQ(q->abs_max, (std::vector<float>{3, 4}));
  EXPECT_EQ(q->abs_sum, (std::vector<double>{8, 12}));
  EXPECT_EQ(collector.find("o")->tokens, 2);
}

/// A pass that stops when q and k have seen their input shows nothing between it and the next, whose inputs may lie in
/// the same memory.
TEST(StatisticsCollector, CountsEveryPassThatEndsEarly) {
  Machine machine;
  StatisticsCollector collector({"q", "k"}, machine.exec);
  float x[] = {1, 2};
  for (int pass = 0; pass < 3; ++pass) {
    x[0] = static_cast<float>(pass);
    for (const char* name : {"q", "k"}) collector.linear_input(name, x, 1, 2);
  }
  ASSERT_EQ(collector.find("q"), collector.find("k"));
  EXPECT_EQ(collector.find("q")->tokens, 3);
  EXPECT_EQ(collector.find("q")->abs_sum, (std::vector<double>{3, 6}));
}

/// Block by block gives what the model gives as a whole.
TEST(BlockRunner, PassesActivationsOn) {
  Machine machine;
  const auto source = Checkpoint::open(test::source("models/demo").string());
  const WeightStore weights(source);
  const models::Decoder decoder = models::build_decoder(weights, machine.exec);
  const Sequences sequences = sequences_of_demo(2, 24);
  BlockRunner runner(decoder, sequences, machine.exec);
  EXPECT_EQ(runner.tokens(), 48);
  const test::TempDir temp;
  BlockRunner spilled(decoder, sequences, machine.exec, temp.path());
  for (std::int64_t b = 0; b < decoder.config.num_layers; ++b) {
    runner.run(b, {.advance = true});
    spilled.run(b, {.advance = true});
  }
  EXPECT_TRUE(std::ranges::equal(runner.activations(), spilled.activations()));
  std::vector<float> last(runner.activations().end() - runner.hidden(), runner.activations().end());
  decoder.final_norm.forward(last.data(), 1, last.data(), machine.exec);
  std::vector<float> logits(static_cast<std::size_t>(decoder.config.vocab_size)), whole;
  decoder.head.forward(last.data(), 1, logits.data(), machine.exec);
  const std::vector<float> all = BlockRunner(decoder, sequences, machine.exec).logits(0, 1);
  EXPECT_LT(test::relative_error({all.end() - decoder.config.vocab_size, all.end()}, logits), 1e-5);
  const auto model = Model::load(source, {}, machine.exec);
  BatchItem item;
  item.sequence = model->open_sequence();
  item.ids = sequences[1];
  model->forward({&item, 1}, whole, machine.exec);
  EXPECT_LT(test::relative_error(logits, whole), 1e-5);
  const Sequences wrong{{1, 100000}};
  EXPECT_THROW(BlockRunner(decoder, wrong, machine.exec), Error);
}

/// Keeps every input and says how often each linear ran.
class Recorder final : public Tap {
 public:
  void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override {
    inputs[std::string(module)].assign(x, x + m * k);
    ++runs[std::string(module)];
  }
  void linear_output(std::string_view, const float*, std::int64_t, std::int64_t) override {}

  std::map<std::string, std::vector<float>> inputs;
  std::map<std::string, int> runs;
};

/// Later runs begin where an earlier one ended, as far as there is room, and give the same values.
TEST(BlockRunner, BeginsFromWhatItRemembers) {
  Machine machine;
  const auto source = Checkpoint::open(test::source("models/demo").string());
  const WeightStore weights(source);
  const models::Decoder decoder = models::build_decoder(weights, machine.exec);
  const std::string o = decoder.blocks[0].attention.o.name, down = decoder.blocks[0].mlp.down.name;
  const std::string q = decoder.blocks[0].attention.q.name, up = decoder.blocks[0].mlp.up.name;
  const Sequences sequences = sequences_of_demo(2, 24);
  const std::int64_t of_o = 48 * 4 * decoder.blocks[0].attention.o.inputs();
  const std::int64_t of_down = 48 * 4 * decoder.blocks[0].mlp.down.inputs();
  const test::TempDir temp;
  BlockRunner plain(decoder, sequences, machine.exec);
  Recorder expected;
  plain.run(0, {.tap = &expected, .advance = true});
  struct Case {
    std::int64_t room;
    int q_runs, up_runs;
    fs::path spill;
  };
  for (const Case& c : {Case{0, 6, 4, {}}, Case{of_o, 2, 4, {}}, Case{of_o + of_down, 2, 2, {}},
                        Case{of_o + of_down, 2, 2, temp.path()}}) {
    BlockRunner runner(decoder, sequences, machine.exec, c.spill);
    runner.remember(c.room);
    Recorder seen;
    runner.run(0, {.tap = &seen, .until = {o}, .keep = true});
    runner.run(0, {.tap = &seen, .until = {down}, .keep = true});
    runner.run(0, {.tap = &seen, .advance = true});
    EXPECT_EQ(seen.runs[q], c.q_runs) << c.room;
    EXPECT_EQ(seen.runs[up], c.up_runs) << c.room;
    EXPECT_EQ(seen.inputs, expected.inputs) << c.room;
    EXPECT_TRUE(std::ranges::equal(runner.activations(), plain.activations())) << c.room;
  }
}

gptq::QuantizerConfig config_of(int bits, bool desc_act = false, bool sequential = true) {
  gptq::QuantizerConfig config;
  config.solver.options.bits = bits;
  config.solver.options.group = 64;
  config.solver.options.desc_act = desc_act;
  config.true_sequential = sequential;
  return config;
}

/// Distance of a checkpoint's logits from those of the demo model.
double distance(const fs::path& folder, const Sequences& sequences, Machine& machine) {
  const auto logits = [&](const std::string& name) {
    const auto model = Model::load(Checkpoint::open(name), {}, machine.exec);
    std::vector<float> all;
    for (const auto& ids : sequences) {
      for_each_logits(*model, ids, machine.exec, [&](std::int64_t, std::int64_t rows, const float* values) {
        all.insert(all.end(), values, values + rows * model->info().vocab_size);
      });
    }
    return all;
  };
  const std::vector<float> a = logits(folder.string()), b = logits(test::source("models/demo").string());
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(squares / norm);
}

/// Blocks 0 and 1 of the demo model, quantized and written.
std::vector<ModuleReport> quantize(const gptq::QuantizerConfig& config, const fs::path& out, const Sequences& sequences,
                                   int threads, std::int64_t remember_bytes = 0, double float_inputs = 0) {
  Machine machine(threads);
  const auto source = Checkpoint::open(test::source("models/demo").string());
  gptq::Quantizer quantizer(config);
  ModuleSelection selection;
  selection.only = block_linears(source, machine.exec);
  EXPECT_EQ(selection.only->size(), 42U);
  selection.include = {"model.layers.0.*", "model.layers.1.*"};
  const QuantizationPlan plan = plan_quantization(*source, quantizer, selection, threads);
  BlockTask task;
  task.source = source;
  task.modules = plan.modules;
  task.sequences = sequences;
  task.remember_bytes = remember_bytes;
  task.float_inputs = float_inputs;
  std::vector<ModuleReport> reports;
  task.on_module = [&](const ModuleReport& report) { reports.push_back(report); };
  block_quantize(task, quantizer, machine.exec);
  QuantizeOptions options;
  options.out = out;
  quantize_checkpoint(*source, plan, quantizer, options, machine.pool);
  return reports;
}

TEST(BlockQuantizer, IsCloserThanRoundingAndTheSameForAnyThreads) {
  const test::TempDir temp;
  const Sequences sequences = sequences_of_demo(8, 64);
  const std::vector<ModuleReport> reports = quantize(config_of(3), temp / "gptq", sequences, 2);
  EXPECT_EQ(reports.size(), 14U);
  for (const ModuleReport& report : reports) {
    EXPECT_FALSE(report.rounded) << report.module;
    EXPECT_EQ(report.damp, 0.01) << report.module;
    EXPECT_GT(report.loss, 0) << report.module;
  }
  quantize(config_of(3), temp / "one", sequences, 1);
  EXPECT_EQ(test::read_text(temp / "gptq/model.safetensors"), test::read_text(temp / "one/model.safetensors"));

  gptq::QuantizerConfig rounding = config_of(3);
  rounding.solver.options.damp = 0.999;  // no feedback to speak of: codes are those of rounding
  quantize(rounding, temp / "rounded", {{1}}, 2);
  Machine machine;
  const Sequences held_out = sequences_of_demo(12, 64);
  const double with = distance(temp / "gptq", {held_out.end() - 2, held_out.end()}, machine);
  const double without = distance(temp / "rounded", {held_out.end() - 2, held_out.end()}, machine);
  EXPECT_LT(with, 0.9 * without);

  const WeightStore written(Checkpoint::open((temp / "gptq").string()));
  ASSERT_NE(written.scheme(), nullptr);
  EXPECT_EQ(written.scheme()->name, "gptq");
  EXPECT_EQ(written.reader()->modules().size(), 14U);
}

TEST(BlockQuantizer, RemembersWithoutChangingAByte) {
  const test::TempDir temp;
  const Sequences sequences = sequences_of_demo(3, 32);
  for (const double float_inputs : {0.0, 0.5}) {
    const fs::path without = temp / cat("without-", float_inputs), with = temp / cat("with-", float_inputs);
    quantize(config_of(3), without, sequences, 2, 0, float_inputs);
    quantize(config_of(3), with, sequences, 2, std::int64_t{1} << 30, float_inputs);
    EXPECT_EQ(test::read_text(without / "model.safetensors"), test::read_text(with / "model.safetensors"));
  }
}

TEST(BlockQuantizer, ActOrderAndOnePassPerBlock) {
  const test::TempDir temp;
  const Sequences sequences = sequences_of_demo(2, 32);
  gptq::QuantizerConfig config = config_of(4, true, false);
  config.solver.options.sym = false;
  quantize(config, temp / "out", sequences, 2);
  const auto written = Checkpoint::open((temp / "out").string());
  const Json& json = *written->config().find("quantization_config");
  EXPECT_EQ(json.find("checkpoint_format")->string("format"), "gptq_v2");
  EXPECT_TRUE(json.find("desc_act")->boolean("desc_act"));
  ASSERT_NE(json.find("dynamic"), nullptr) << "four blocks stay in floats";
  Machine machine;
  EXPECT_LT(distance(temp / "out", sequences, machine), 0.2);
}

TEST(CalibrationSequences, BuiltinAndNames) {
  const fs::path demo = test::source("models/demo");
  const Sequences a = calibration_sequences("builtin", {}, demo, {.samples = 3, .seqlen = 100});
  ASSERT_EQ(a.size(), 3U);
  for (const auto& ids : a) EXPECT_EQ(ids.size(), 100U);
  EXPECT_NE(a[0], a[1]);
  EXPECT_EQ(a, calibration_sequences("builtin", {}, demo, {.samples = 3, .seqlen = 100}));
  try {
    calibration_sequences("wikitext2", {}, demo, {});
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_TRUE(test::says(error.what(), "--dataset-path"));
  }
  const test::TempDir temp;
  test::write_text(temp / "wiki.train.raw",
                   "Once upon a time there was a small dog. Once upon a time there was a big dog.");
  EXPECT_EQ(calibration_sequences("wikitext2", temp.path(), demo, {.samples = 2, .seqlen = 5}).size(), 2U);
  EXPECT_THROW(calibration_sequences("ptb", temp.path(), demo, {}), Error);
}

}  // namespace
}  // namespace nibble
