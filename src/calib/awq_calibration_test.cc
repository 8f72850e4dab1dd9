// AWQ over whole models: the float model stays the same in every family, searches find what AutoAWQ finds, and the
// checkpoints are better than rounding.
#include "calib/awq_calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/json.h"
#include "calib/awq_output_loss.h"
#include "calib/block_quantizer.h"
#include "calib/dataset.h"
#include "calib/gram.h"
#include "layout/dense/dense.h"
#include "quant/quantize_checkpoint.h"
#include "run/model.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using Sequences = std::vector<std::vector<std::int32_t>>;
using Source = std::shared_ptr<const Checkpoint>;

using Machine = test::F32Machine;

const Sequences kIds{{1, 17, 30, 5, 44, 23, 9, 12, 40, 2, 8}, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3}};

std::vector<float> logits_of(const Source& source, const Sequences& sequences, Machine& machine) {
  const auto model = Model::load(source, {}, machine.exec);
  std::vector<float> all;
  for (const auto& ids : sequences) {
    for_each_logits(*model, ids, machine.exec, [&](std::int64_t, std::int64_t rows, const float* values) {
      all.insert(all.end(), values, values + rows * model->info().vocab_size);
    });
  }
  return all;
}

/// A checkpoint of other tensors under the source's config.
Source with_tensors(const Source& source, std::vector<StoredTensor> tensors) {
  const auto owned = std::make_shared<std::vector<StoredTensor>>(std::move(tensors));
  CheckpointParts parts;
  parts.folder = source->folder();
  parts.config = source->config();
  for (const StoredTensor& tensor : *owned) parts.tensors.push_back({tensor.name, tensor.tensor.view(), "memory", {}});
  parts.owner = owned;
  return Checkpoint::in_memory(std::move(parts));
}

Tensor as_f32(const View& view) {
  Tensor out(view.shape(), DType::f32);
  convert_to_f32(view.dtype(), view.data(), out.as<float>().data(), view.count());
  return out;
}

Source in_f32(const Source& source) {
  std::vector<StoredTensor> tensors;
  for (const TensorEntry& entry : source->tensors()) tensors.push_back({entry.name, as_f32(entry.view)});
  return with_tensors(source, std::move(tensors));
}

struct AwqRun {
  explicit AwqRun(awq::QuantizerConfig config) : quantizer(std::move(config)) {}
  Source source;  ///< which the plan points into
  awq::Quantizer quantizer;
  QuantizationPlan plan;
  std::vector<AwqReport> reports;
};

awq::QuantizerConfig config_for(const Source& source, std::int64_t group, Machine& machine) {
  const AwqModules modules = awq_modules(source, machine.exec);
  awq::QuantizerConfig config;
  config.options.group = group;
  config.activations = modules.activations;
  config.never = modules.routers;
  return config;
}

AwqRun quantized(const Source& source, const Sequences& sequences, const awq::QuantizerConfig& config, Machine& machine,
                 AwqLoss loss = AwqLoss::gram, std::vector<std::string> include = {}) {
  AwqRun run(config);
  run.source = source;
  ModuleSelection selection;
  selection.only = awq_modules(source, machine.exec).linears;
  selection.include = std::move(include);
  run.plan = plan_quantization(*source, run.quantizer, selection, machine.pool.size());
  AwqTask task;
  task.source = source;
  task.modules = run.plan.modules;
  task.sequences = sequences;
  task.loss = loss;
  task.on_step = [&](const AwqReport& report) { run.reports.push_back(report); };
  awq_quantize(task, run.quantizer, machine.exec);
  return run;
}

/// The model after folding, before rounding: every weight in f32 as it would be quantized.
Source folded(const Source& source, const AwqRun& run) {
  std::vector<StoredTensor> tensors;
  for (const PlannedTensor& planned : run.plan.tensors) {
    const TensorEntry& entry = *planned.source;
    const Tensor* replaced = run.quantizer.replacement(entry.name);
    if (planned.module.empty()) {
      tensors.push_back({entry.name, replaced != nullptr ? *replaced : Tensor(entry.view)});
      continue;
    }
    Tensor weight = as_f32(entry.view);
    const std::int64_t rows = entry.view.dim(0), cols = entry.view.dim(1);
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<float> back(static_cast<std::size_t>(cols), 1.0F);
      run.quantizer.as_in_source(planned.module, r, back);
      float* w = weight.as<float>().data() + r * cols;
      for (std::int64_t k = 0; k < cols; ++k) w[k] /= back[static_cast<std::size_t>(k)];
    }
    tensors.push_back({entry.name, std::move(weight)});
    for (const StoredTensor& stored : run.quantizer.modules().at(planned.module).tensors) {
      if (stored.name.rfind(planned.module, 0) != 0) tensors.push_back(stored);  // an activation's scales
    }
  }
  return with_tensors(source, std::move(tensors));
}

struct Family {
  const char* model;
  int searched;  ///< steps with factors, of both blocks
  int all;
};

class AwqFamilies : public testing::TestWithParam<Family> {};

TEST_P(AwqFamilies, FoldingKeepsTheFloatModel) {
  Machine machine;
  const Source stored = Checkpoint::open(test::data(cat("models/", GetParam().model)).string());
  const Source exact = in_f32(stored);
  for (const Source& source : {exact, stored}) {
    const AwqRun run = quantized(source, kIds, config_for(source, -1, machine), machine);
    int searched = 0, scaled = 0;
    for (const AwqReport& report : run.reports) {
      searched += report.searched ? 1 : 0;
      scaled += report.ratio >= 0 ? 1 : 0;
      if (report.searched) {
        EXPECT_LE(report.loss, report.plain_loss) << report.modules.front();
      }
    }
    EXPECT_EQ(searched, GetParam().searched);
    EXPECT_EQ(static_cast<int>(run.reports.size()), GetParam().all);
    EXPECT_GT(scaled, searched / 2);
    const std::vector<float> before = logits_of(source, kIds, machine);
    // Norms in bf16 stay exact, too, since weights take up what their rounding leaves; biases of norms do not.
    EXPECT_LT(test::relative_error(logits_of(folded(source, run), kIds, machine), before),
              source == exact ? 2e-5 : 1e-2);
  }
}

INSTANTIATE_TEST_SUITE_P(All, AwqFamilies,
                         testing::Values(Family{"llama", 6, 8}, Family{"llama-v4-bias-tied", 8, 8},
                                         Family{"mistral", 6, 8}, Family{"qwen2-v4", 6, 8}, Family{"qwen3", 6, 8},
                                         Family{"opt", 8, 8}, Family{"opt-v4-350m", 4, 8}, Family{"neox", 6, 8},
                                         Family{"neox-v4-sequential", 6, 8}, Family{"bloom", 6, 8},
                                         Family{"bloom-v4-post-norm", 2, 8}, Family{"mixtral-v4-window", 10, 12},
                                         Family{"starcoder2-v4-window", 6, 8}),
                         [](const auto& info) {
                           std::string name = info.param.model;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(AwqCalibration, RefusesGpt2AndGroupsThatDoNotDivide) {
  Machine machine;
  const Source gpt2 = Checkpoint::open(test::data("models/gpt2-v4").string());
  EXPECT_THROW(quantized(gpt2, kIds, config_for(gpt2, -1, machine), machine), Error);
  const Source llama = Checkpoint::open(test::data("models/llama").string());
  EXPECT_THROW(quantized(llama, kIds, config_for(llama, 32, machine), machine), Error);
}

TEST(AwqCalibration, OneTokenAgainAndAgain) {
  Machine machine;
  const Source llama = Checkpoint::open(test::data("models/llama").string());
  const AwqRun run = quantized(llama, {{7, 7, 7, 7, 7, 7, 7, 7}}, config_for(llama, -1, machine), machine);
  EXPECT_LT(test::relative_error(logits_of(folded(llama, run), kIds, machine), logits_of(llama, kIds, machine)), 1e-2);
}

/// What AutoAWQ's search saw and chose for tiny-llama with groups of 128.
struct Library {
  Source model = Checkpoint::open(test::data("awq/search/model").string());
  Source golden = Checkpoint::open(test::data("awq/search/g128.safetensors").string());
  Json losses = Json::read(test::data("awq/search/losses.json"));
  Sequences sequences =
      read_dataset(test::data("awq/search/calibration_ids.json"), model->folder(), {.samples = 1000, .seqlen = 1000});

  std::vector<double> losses_of(const std::string& step) const {
    std::vector<double> out;
    for (const Json& loss : losses.find("g128")->find(step)->array(step)) out.push_back(loss.number(step));
    return out;
  }
};

TEST(AwqCalibration, LossesOfOutputsAreAutoAwqs) {
  Machine machine;
  const Library library;
  const WeightStore weights(library.model);
  models::Decoder decoder = models::build_decoder(weights, machine.exec);
  BlockRunner runner(decoder, library.sequences, machine.exec);
  for (std::int64_t b = 0; b < 2; ++b) {
    nn::Block& block = decoder.blocks[static_cast<std::size_t>(b)];
    const std::set<std::string> names = block_linears(library.model, machine.exec);
    for (const AwqStep& step : awq_steps(block, {names.begin(), names.end()})) {
      if (step.inspect == AwqStep::Inspect::linears) continue;
      const std::string key =
          cat("layers.", b, step.inspect == AwqStep::Inspect::mlp ? ".mlp.gate_proj" : ".self_attn.q_proj");
      AwqOutputLoss output(decoder, b, step, runner, machine.exec);
      EXPECT_EQ(output.changed(), 0);
      const std::vector<double> theirs = library.losses_of(key);
      const std::vector<float> x_mean = library.golden->at("awq.x_mean." + key).to_f32();
      const std::vector<float> w_mean = library.golden->at("awq.w_mean." + key).to_f32();
      for (std::size_t i = 0; i < theirs.size(); i += 5) {
        const std::vector<float> scales =
            awq_scales(x_mean, w_mean, static_cast<double>(i) / 20, true, AwqArithmetic::f16);
        std::vector<QTensor> own;
        for (nn::Linear* linear : step.linears) {
          std::vector<float> w(static_cast<std::size_t>(linear->outputs() * linear->inputs()));
          decode(linear->weight, 0, linear->outputs(), w.data(), machine.exec);
          const auto changed = std::make_shared<std::vector<float>>(
              awq_rounded({w.data(), linear->outputs()}, scales, 128, machine.pool));
          own.push_back(linear->weight);
          linear->weight =
              dense::make(View(changed->data(), {linear->outputs(), linear->inputs()}, DType::f32), changed);
        }
        EXPECT_NEAR(output.changed() / theirs[i], 1, 0.02) << key << " ratio " << i << "/20";
        for (std::size_t l = 0; l < own.size(); ++l) step.linears[l]->weight = own[l];
      }
    }
    runner.run(b, {.advance = true});
  }
}

TEST(AwqCalibration, ChoosesAutoAwqsRatios) {
  Machine machine;
  const Library library;
  const AwqRun run =
      quantized(library.model, library.sequences, config_for(library.model, 128, machine), machine, AwqLoss::output);
  int compared = 0;
  for (const AwqReport& report : run.reports) {
    if (!report.searched) continue;
    const std::vector<double> theirs = library.losses_of(report.modules.front().substr(std::strlen("model.")));
    const double best = *std::min_element(theirs.begin(), theirs.end());
    ASSERT_GE(report.ratio, 0);
    // The same ratio, or one that the library finds as good: its losses are sums of float16 roundings.
    EXPECT_LT(theirs[static_cast<std::size_t>(std::lround(20 * report.ratio))], 1.005 * best) << report.modules.front();
    EXPECT_NEAR(report.loss / best, 1, 0.02) << report.modules.front();
    ++compared;
  }
  EXPECT_EQ(compared, 6);
}

/// Blocks 0 and 1 of the demo model, quantized and written.
AwqRun quantize_demo(const awq::QuantizerConfig& config, const fs::path& out, const Sequences& sequences, int threads) {
  Machine machine(threads);
  const Source source = Checkpoint::open(test::source("models/demo").string());
  AwqRun run = quantized(source, sequences, config, machine, AwqLoss::gram, {"model.layers.0.*", "model.layers.1.*"});
  QuantizeOptions options;
  options.out = out;
  quantize_checkpoint(*source, run.plan, run.quantizer, options, machine.pool);
  return run;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(squares / norm);
}

TEST(AwqCalibration, IsCloserThanRoundingAndTheSameForAnyThreads) {
  const test::TempDir temp;
  const fs::path demo = test::source("models/demo");
  const Sequences all = read_dataset(demo / "calibration_ids.json", demo, {.samples = 36, .seqlen = 64});
  const Sequences sequences(all.begin(), all.begin() + 32), held_out(all.begin() + 32, all.end());
  awq::QuantizerConfig config;
  config.options.group = 128;
  const AwqRun run = quantize_demo(config, temp / "two", sequences, 2);
  EXPECT_EQ(run.reports.size(), 8U);
  quantize_demo(config, temp / "one", sequences, 1);
  EXPECT_EQ(test::read_text(temp / "two/model.safetensors"), test::read_text(temp / "one/model.safetensors"));
  for (const awq::Variant variant : {awq::Variant::gemv, awq::Variant::gemv_fast, awq::Variant::llm_awq}) {
    config.variant = variant;
    quantize_demo(config, temp / std::string(name_of(variant)), sequences, 2);
  }

  Machine machine;
  const Source source = Checkpoint::open(demo.string());
  const std::vector<float> floats = logits_of(source, held_out, machine);
  const auto far = [&](const fs::path& folder) {
    return distance(logits_of(Checkpoint::open(folder.string()), held_out, machine), floats);
  };
  const double with = far(temp / "two");
  // Rounding alone: every weight by the same grid, without factors and bounds.
  std::vector<StoredTensor> tensors;
  for (const PlannedTensor& planned : run.plan.tensors) {
    const View& view = planned.source->view;
    if (planned.module.empty()) {
      tensors.push_back({planned.source->name, Tensor(view)});
      continue;
    }
    const std::vector<float> w = view.to_f32(), ones(static_cast<std::size_t>(view.dim(1)), 1.0F);
    const std::vector<float> rounded = awq_rounded({w.data(), view.dim(0)}, ones, 128, machine.pool);
    tensors.push_back({planned.source->name, Tensor(View(rounded.data(), view.shape(), DType::f32))});
  }
  EXPECT_LT(with, 0.95 * distance(logits_of(with_tensors(source, std::move(tensors)), held_out, machine), floats));
  EXPECT_NEAR(far(temp / "gemv"), with, 1e-6);
  EXPECT_NEAR(far(temp / "gemv_fast"), with, 0.02 * with);
  EXPECT_NEAR(far(temp / "llm-awq"), with, 0.02 * with);

  const Source written = Checkpoint::open((temp / "two").string());
  const Json& json = *written->config().find("quantization_config");
  EXPECT_EQ(json.find("version")->string("version"), "gemm");
  EXPECT_TRUE(json.find("zero_point")->boolean("zero_point"));
  EXPECT_FALSE(json.find("modules_to_not_convert")->is_null()) << "four blocks stay in floats";
  EXPECT_NE(written->at("model.layers.0.input_layernorm.weight").at(0),
            source->at("model.layers.0.input_layernorm.weight").at(0));
}

}  // namespace
}  // namespace nibble
