// Jobs that stop and go on: the same tensors as without a stop, nothing done twice, nothing of another job used.
#include "calib/journal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "calib/awq_calibration.h"
#include "calib/block_quantizer.h"
#include "calib/dataset.h"
#include "quant/gptq/quantizer.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// GPTQ with 4 bits that says of one module that it was rounded.
class Method final : public SolvedQuantizer {
 public:
  Method() : SolvedQuantizer("gptq"), gptq_({.solver = {.options = {.group = 64}}}) {}
  std::string rounded;  ///< the module
  int solved = 0;

  std::string describe(const std::string& module, const Shape& shape, DType dtype) const override {
    return gptq_.describe(module, shape, dtype);
  }
  std::vector<TensorPlan> outputs(const std::string& module, const Shape& shape, DType dtype) const override {
    return gptq_.outputs(module, shape, dtype);
  }
  std::int64_t working_bytes(const std::string&, const Shape&, DType, int) const override { return 0; }
  std::optional<Json> quantization_config(const SelectionResult& selected) const override {
    return gptq_.quantization_config(selected);
  }
  SolvedModule solve(const std::string& module, std::span<const float> weight, std::int64_t rows, std::int64_t cols,
                     std::span<const float> gram, Exec& exec) override {
    ++solved;
    SolvedModule out = gptq_.solve(module, weight, rows, cols, gram, exec);
    out.rounded = module == rounded;
    return out;
  }
  bool true_sequential() const override { return true; }

 private:
  gptq::Quantizer gptq_;
};

struct Stopped {};

/// Calibrates linears of blocks 0 and 1 of the demo model; stops after `most` of them.
void calibrate(Method& method, Journal* journal, int most = 1000, bool fallback = true) {
  ThreadPool pool(2);
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = DType::f32};
  BlockTask task;
  task.source = Checkpoint::open(test::source("models/demo").string());
  for (const char* name : {"self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"})
    task.modules.push_back(std::string("model.layers.0.") + name);
  task.modules.push_back("model.layers.1.self_attn.k_proj");
  task.sequences = read_dataset(test::source("models/demo/calibration_ids.json"), test::source("models/demo"),
                                {.samples = 2, .seqlen = 32});
  task.journal = journal;
  task.fallback = fallback;
  int seen = 0;
  task.on_module = [&](const ModuleReport&) {
    if (++seen == most) throw Stopped{};
  };
  block_quantize(task, method, exec);
}

void expect_same(const SolvedQuantizer& a, const SolvedQuantizer& b) {
  ASSERT_EQ(a.modules().size(), b.modules().size());
  for (const auto& [name, module] : a.modules()) {
    const std::vector<StoredTensor>& others = b.modules().at(name).tensors;
    ASSERT_EQ(module.tensors.size(), others.size());
    for (std::size_t i = 0; i < others.size(); ++i) {
      EXPECT_EQ(module.tensors[i].name, others[i].name);
      EXPECT_TRUE(std::ranges::equal(module.tensors[i].tensor.view().bytes(), others[i].tensor.view().bytes()))
          << others[i].name;
    }
  }
}

const Json kIdentity = Json::Object{{"recipe", "this"}};

TEST(Journal, AStoppedJobGoesOnWithTheSameTensors) {
  const test::TempDir temp;
  Method whole;
  calibrate(whole, nullptr);
  {
    Journal journal(temp / "out/", kIdentity, true);
    Method method;
    EXPECT_THROW(calibrate(method, &journal, 4), Stopped);
  }
  Journal journal(temp / "out", kIdentity, true);
  EXPECT_EQ(journal.finished_units(), 2) << "q and v; o";
  EXPECT_FALSE(journal.writing());
  Method method;
  calibrate(method, &journal);
  EXPECT_EQ(method.solved, 2);
  expect_same(method, whole);
  const std::string log = journal.log_text();
  EXPECT_EQ(std::ranges::count(log, '\n'), 5) << log;
  EXPECT_EQ(log.find("model.layers.0.self_attn.q_proj"), 12U) << log;
  journal.finish();
  EXPECT_FALSE(fs::exists(temp / "out.quantize.partial"));
}

TEST(Journal, OtherJobsStayAndAreNotUsed) {
  const test::TempDir temp;
  {
    Journal journal(temp / "out", kIdentity, true);
    Method method;
    EXPECT_THROW(calibrate(method, &journal, 4), Stopped);
    journal.set_writing();
  }
  EXPECT_TRUE(Journal::any_writing(temp / "out"));
  const Json other = Json::Object{{"recipe", "that"}};
  {
    Journal journal(temp / "out", other, true);
    EXPECT_EQ(journal.finished_units(), 0);
    EXPECT_FALSE(journal.writing()) << "what is in the output is not this job's";
    EXPECT_EQ(journal.others(), std::vector<Json>{kIdentity});
  }
  {
    Journal journal(temp / "out", kIdentity, true);
    EXPECT_EQ(journal.finished_units(), 2);
    EXPECT_TRUE(journal.writing());
  }
  Journal journal(temp / "out", kIdentity, false);
  EXPECT_EQ(journal.finished_units(), 0);
  EXPECT_FALSE(journal.writing());
}

TEST(Journal, OneProcessAtATime) {
  const test::TempDir temp;
  const Journal first(temp / "out", kIdentity, true);
  try {
    const Journal second(temp / "out", Json::Object{{"recipe", "that"}}, true);
    ADD_FAILURE() << "two writers";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    EXPECT_NE(std::string(error.what()).find("another process"), std::string::npos) << error.what();
  }
}

TEST(Journal, ADamagedUnitIsDoneAgain) {
  const test::TempDir temp;
  Method whole;
  {
    Journal journal(temp / "out", kIdentity, true);
    calibrate(whole, &journal);
  }
  for (const auto& entry : fs::recursive_directory_iterator(temp / "out.quantize.partial")) {
    const fs::path file = entry.path();
    if (file.filename() == "model.safetensors" && file.parent_path().filename() == "unit-00001") {
      fs::resize_file(file, fs::file_size(file) / 2);
    }
  }
  Journal journal(temp / "out", kIdentity, true);
  Method method;
  calibrate(method, &journal);
  EXPECT_EQ(method.solved, 1) << "o_proj alone";
  expect_same(method, whole);
  const std::string log = journal.log_text();
  EXPECT_EQ(std::ranges::count(log, '\n'), 5) << log;
}

TEST(Journal, WithoutFallbackARoundedModuleIsAnError) {
  const test::TempDir temp;
  Method method;
  method.rounded = "model.layers.0.self_attn.o_proj";
  for (const char* run : {"solved", "restored"}) {
    Journal journal(temp / "out", kIdentity, true);
    try {
      calibrate(method, &journal, 1000, false);
      ADD_FAILURE() << run << ": nothing was refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::runtime);
      EXPECT_EQ(std::string(error.what()).find("model.layers.0.self_attn.o_proj: "), 0U) << run << ": " << error.what();
    }
    if (std::string(run) == "solved") calibrate(method, &journal);  // what fell back is in the journal now
  }
}

/// AWQ of a whole model with biases, activation scales or routers, as its architecture has them.
struct AwqJob {
  explicit AwqJob(const std::string& model, AwqLoss loss = AwqLoss::gram)
      : source(Checkpoint::open(test::data("models/" + model).string())) {
    const AwqModules modules = awq_modules(source, machine.exec);
    awq::QuantizerConfig config;
    config.options.group = -1;
    config.activations = modules.activations;
    config.never = modules.routers;
    quantizer = std::make_unique<awq::Quantizer>(config);
    task.source = source;
    task.loss = loss;
    task.modules = {modules.linears.begin(), modules.linears.end()};
    task.sequences = {{1, 17, 30, 5, 44, 23, 9, 12, 40, 2, 8}, {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}};
  }

  /// Stops after `most` modules.
  void run(Journal* journal, int most = 1000) {
    task.journal = journal;
    int seen = 0;
    task.on_module = [&](const ModuleReport&) {
      if (++seen == most) throw Stopped{};
    };
    task.on_step = [&](const AwqReport& report) { steps.push_back(report); };
    awq_quantize(task, *quantizer, machine.exec);
  }

  std::int64_t searched_now() const {
    return std::ranges::count_if(steps, [](const AwqReport& step) { return !step.restored; });
  }

  test::F32Machine machine;
  std::shared_ptr<const Checkpoint> source;
  AwqTask task;
  std::unique_ptr<awq::Quantizer> quantizer;
  std::vector<AwqReport> steps;
};

/// Everything that the output and its check take from the quantizers.
void expect_same(const AwqJob& a, const AwqJob& b) {
  expect_same(*a.quantizer, *b.quantizer);
  for (const TensorEntry& entry : a.source->tensors()) {
    const Tensor *x = a.quantizer->replacement(entry.name), *y = b.quantizer->replacement(entry.name);
    ASSERT_EQ(x == nullptr, y == nullptr) << entry.name;
    EXPECT_TRUE(x == nullptr || std::ranges::equal(x->view().bytes(), y->view().bytes())) << entry.name;
  }
  for (const std::string& module : a.task.modules) {
    EXPECT_EQ(a.quantizer->scales(module).inputs, b.quantizer->scales(module).inputs) << module;
    EXPECT_EQ(a.quantizer->scales(module).outputs, b.quantizer->scales(module).outputs) << module;
  }
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (std::size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_EQ(a.steps[i].modules, b.steps[i].modules);
    EXPECT_EQ(a.steps[i].ratio, b.steps[i].ratio);
    EXPECT_EQ(a.steps[i].loss, b.steps[i].loss);
  }
}

TEST(Journal, AStoppedAwqJobGoesOnWithTheSameTensors) {
  using enum AwqLoss;
  for (const auto& [model, loss] :
       {std::pair("llama-v4-bias-tied", gram), std::pair("llama-v4-bias-tied", output), std::pair("bloom", gram),
        std::pair("mixtral-v4-window", gram), std::pair("starcoder2-v4-window", gram)}) {
    const test::TempDir temp;
    AwqJob whole(model, loss);
    whole.run(nullptr);
    const auto block = static_cast<int>(whole.task.modules.size()) / 2;  // of two
    {
      Journal journal(temp / "out", kIdentity, true);
      AwqJob job(model, loss);
      EXPECT_THROW(job.run(&journal, block + 2), Stopped) << model;
    }
    for (const bool damaged : {false, true}) {
      if (damaged) {
        for (const auto& entry : fs::recursive_directory_iterator(temp / "out.quantize.partial")) {
          const bool first = entry.path().parent_path().filename() == "unit-00000";
          if (first && entry.path().filename() == "config.json") test::write_text(entry.path(), "{}");
        }
      }
      Journal journal(temp / "out", kIdentity, true);
      EXPECT_EQ(journal.finished_units(), damaged ? 2 : 1) << model;
      AwqJob job(model, loss);
      job.run(&journal);
      EXPECT_EQ(job.searched_now(), static_cast<std::int64_t>(whole.steps.size()) / 2) << model << ": one block";
      expect_same(job, whole);
      EXPECT_EQ(std::ranges::count(journal.log_text(), '\n'), 2 * block) << model;
    }
  }
}

TEST(Journal, WithoutFallbackAnExpertThatNoTokenReachedIsAnError) {
  AwqJob job("mixtral-v4-window");
  job.task.sequences = {{7}};
  job.task.fallback = false;
  try {
    job.run(nullptr);
    ADD_FAILURE() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::runtime);
    EXPECT_NE(std::string(error.what()).find(": no token reached it"), std::string::npos) << error.what();
  }
}

TEST(ModuleReport, SurvivesJson) {
  ModuleReport report{.module = "a.b", .shape = {3, 5}, .tokens = 7, .loss = 0.1, .damp = 0.02, .dead = 4};
  report.rounded = true;
  report.seconds = 1.5;
  report.resident_bytes = 1 << 20;
  const auto back = [&] { return module_report_of(Json::parse(json_of(report).dump(), "test"), "test"); };
  EXPECT_EQ(json_of(back()), json_of(report));
  EXPECT_TRUE(back().restored);
  EXPECT_FALSE(back().factors);
  report.factors = FactorReport{0.35, 0.2};
  report.loss = NAN;
  EXPECT_EQ(json_of(back()), json_of(report));
  EXPECT_FALSE(std::isfinite(back().loss));
  EXPECT_THROW(module_report_of(Json::Object{{"module", "a"}}, "test"), Error);
}

}  // namespace
}  // namespace nibble
