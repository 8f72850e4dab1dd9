#include "calib/held_out.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

TEST(HeldOut, TheSameModelDoesNotDivergeAndAnotherDoes) {
  const test::TempDir temp;
  ThreadPool pool(2);
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = DType::f32};
  const auto source = Checkpoint::open(test::source("models/demo").string());
  const HeldOutOptions options{.windows = 1, .ctx = 64};
  const HeldOutResult same = compare_on_held_out_text(source, source, options, exec);
  ASSERT_TRUE(same.divergence.has_value()) << same.reason;
  EXPECT_EQ(same.tokens, 63);
  EXPECT_LT(same.divergence->kl.value, 1e-6);
  EXPECT_EQ(same.divergence->same_top.value, 1);

  // A model whose last norm is upside down predicts something else.
  CheckpointParts parts;
  parts.folder = source->folder();
  parts.config = source->config();
  parts.tensors.assign(source->tensors().begin(), source->tensors().end());
  std::vector<float> norm = source->at("model.norm.weight").to_f32();
  for (float& value : norm) value = -value;
  for (TensorEntry& entry : parts.tensors) {
    if (entry.name == "model.norm.weight") entry.view = View(norm.data(), entry.view.shape(), DType::f32);
  }
  parts.owner = source->owner();
  const HeldOutResult broken = compare_on_held_out_text(source, Checkpoint::in_memory(std::move(parts)), options, exec);
  ASSERT_TRUE(broken.divergence.has_value()) << broken.reason;
  EXPECT_GT(broken.divergence->kl.value, suspicious_divergence(4.25));
}

TEST(HeldOut, SaysWhyAModelIsNotCompared) {
  const test::TempDir temp;
  ThreadPool pool(1);
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
  CheckpointParts parts;
  parts.config = Json::Object{{"architectures", Json::Array{"NobodyKnowsForCausalLM"}}};
  const auto unknown = Checkpoint::in_memory(std::move(parts));
  const HeldOutResult result = compare_on_held_out_text(unknown, unknown, {}, exec);
  EXPECT_FALSE(result.divergence.has_value());
  EXPECT_NE(result.reason.find("NobodyKnows"), std::string::npos) << result.reason;
}

}  // namespace
}  // namespace nibble
