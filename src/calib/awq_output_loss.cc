#include "calib/awq_output_loss.h"

#include <algorithm>

#include "base/error.h"

namespace nibble {
namespace {

/// Under which name the attention of a block shows its output.
constexpr std::string_view kPart = "attention of the block";

/// A block that stops after its attention.
void attention_only(const nn::Block& block, float* x, const nn::Pass& pass, Exec& exec) {
  const Arena::Scope scope(exec.arena);
  const std::int64_t count = pass.rows * block.attention_norm.size;
  float* normed = exec.arena.take<float>(count).data();
  float* out = exec.arena.take<float>(count).data();
  block.attention_norm.forward(x, pass.rows, normed, exec);
  block.attention.forward(normed, pass, out, exec);
  exec.tap->linear_output(kPart, out, pass.rows, block.attention_norm.size);
}

class OutputTap final : public Tap {
 public:
  using Take = std::function<void(const float* y, std::int64_t count)>;
  explicit OutputTap(const Take& take) : take_(take) {}
  void linear_input(std::string_view, const float*, std::int64_t, std::int64_t) override {}
  void linear_output(std::string_view module, const float* y, std::int64_t m, std::int64_t n) override {
    if (module == kPart) take_(y, m * n);
  }

 private:
  const Take& take_;
};

/// Keeps what goes into a linear.
class InputTap final : public Tap {
 public:
  InputTap(std::string_view module, std::vector<float>& to) : module_(module), to_(to) {}
  void linear_input(std::string_view module, const float* x, std::int64_t m, std::int64_t k) override {
    if (module == module_) to_.insert(to_.end(), x, x + m * k);
  }
  void linear_output(std::string_view, const float*, std::int64_t, std::int64_t) override {}

 private:
  std::string_view module_;
  std::vector<float>& to_;
};

}  // namespace

AwqOutputLoss::AwqOutputLoss(models::Decoder& decoder, std::int64_t index, const AwqStep& step, BlockRunner& runner,
                             Exec& exec)
    : block_(decoder.blocks.at(static_cast<std::size_t>(index))),
      index_(index),
      step_(step),
      runner_(runner),
      exec_(exec) {
  check(step.inspect != AwqStep::Inspect::linears, "awq_output_loss: nothing to run");
  if (step.inspect == AwqStep::Inspect::mlp) {
    InputTap tap(step.router != nullptr ? step.router->name : step.linears.front()->name, inputs_);
    runner.run(index, {.tap = &tap});
  }
  run([&](const float* y, std::int64_t count) { reference_.insert(reference_.end(), y, y + count); });
}

void AwqOutputLoss::run(const std::function<void(const float*, std::int64_t)>& take) {
  if (step_.inspect == AwqStep::Inspect::attention) {
    const nn::BlockForward whole = block_.run;
    block_.run = &attention_only;
    OutputTap tap(take);
    runner_.run(index_, {.tap = &tap});
    block_.run = whole;
    return;
  }
  constexpr std::int64_t kRows = 512;
  const std::int64_t width = runner_.hidden(), tokens = static_cast<std::int64_t>(inputs_.size()) / width;
  std::vector<float> out(static_cast<std::size_t>(kRows * width));
  for (std::int64_t at = 0; at < tokens; at += kRows) {
    const std::int64_t rows = std::min(kRows, tokens - at);
    block_.feed_forward(inputs_.data() + at * width, rows, out.data(), exec_);
    take(out.data(), rows * width);
  }
}

double AwqOutputLoss::changed() {
  double total = 0;
  std::size_t at = 0;
  run([&](const float* y, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i, ++at) {
      const double d = static_cast<double>(y[i]) - static_cast<double>(reference_[at]);
      total += d * d;
    }
  });
  return total / static_cast<double>(std::max<std::size_t>(reference_.size(), 1));
}

}  // namespace nibble
