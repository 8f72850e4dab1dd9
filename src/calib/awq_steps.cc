#include "calib/awq_steps.h"

#include <algorithm>

#include "calib/block_quantizer.h"

namespace nibble {
namespace {

using Names = std::set<std::string, std::less<>>;

class Steps {
 public:
  Steps(nn::Block& block, const Names& wanted) : block_(block), wanted_(wanted) {}

  std::vector<AwqStep> take() {
    attention();
    if (block_.moe.experts.empty()) {
      mlp(block_.mlp);
    } else {
      experts();
    }
    return std::move(steps_);
  }

 private:
  bool quantized(const nn::Linear& linear) const { return !linear.weight.empty() && wanted_.contains(linear.name); }

  /// Whether a norm's output goes nowhere but into the linears behind it, and the norm has a weight.
  bool is_free(const nn::Norm& norm) const {
    return block_.norm_first && block_.run != nn::normed_residual_block && !norm.weight.empty();
  }

  /// A step of those linears that are quantized; it has factors only when all are.
  void add(AwqStep step) {
    const auto missing = [](const nn::Linear* linear) { return linear->weight.empty(); };
    std::erase_if(step.linears, missing);
    const auto kept = [&](const nn::Linear* linear) { return !wanted_.contains(linear->name); };
    if (std::any_of(step.linears.begin(), step.linears.end(), kept)) step.into = AwqStep::Into::nothing;
    std::erase_if(step.linears, kept);
    if (!step.linears.empty()) steps_.push_back(std::move(step));
  }

  void attention() {
    nn::Attention& a = block_.attention;
    AwqStep in;
    in.linears = {&a.q, &a.k, &a.v, &a.qkv};
    in.norm = &block_.attention_norm;
    in.into = is_free(*in.norm) ? AwqStep::Into::norm : AwqStep::Into::nothing;
    in.inspect = AwqStep::Inspect::attention;
    add(std::move(in));
    AwqStep out;
    out.linears = {&a.o};
    out.previous = &a.v;
    out.into = quantized(a.v) && a.v.outputs() == a.o.inputs() ? AwqStep::Into::linear : AwqStep::Into::nothing;
    add(std::move(out));
  }

  void mlp(nn::Mlp& mlp) {
    AwqStep in;
    in.linears = {&mlp.gate, &mlp.up};
    in.norm = &block_.mlp_norm;
    in.into = is_free(*in.norm) ? AwqStep::Into::norm : AwqStep::Into::nothing;
    in.inspect = mlp.gate.weight.empty() ? AwqStep::Inspect::linears : AwqStep::Inspect::mlp;
    add(std::move(in));
    down(mlp);
  }

  void down(nn::Mlp& mlp) {
    AwqStep step;
    step.linears = {&mlp.down};
    step.previous = &mlp.up;
    // relu(x / s) = relu(x) / s for positive s; other activations need a divisor behind them.
    const bool straight = !mlp.gate.weight.empty() || mlp.activation == Activation::relu;
    if (straight && quantized(mlp.up)) step.into = AwqStep::Into::linear;
    if (mlp.gate.weight.empty() && !mlp.activation_name.empty()) step.into = AwqStep::Into::activation;
    add(std::move(step));
  }

  void experts() {
    AwqStep in;
    for (nn::Mlp& expert : block_.moe.experts) in.linears.insert(in.linears.end(), {&expert.gate, &expert.up});
    in.router = &block_.moe.router;
    in.norm = &block_.mlp_norm;
    in.into = is_free(*in.norm) ? AwqStep::Into::norm : AwqStep::Into::nothing;
    in.inspect = AwqStep::Inspect::mlp;
    add(std::move(in));
    for (nn::Mlp& expert : block_.moe.experts) down(expert);
  }

  nn::Block& block_;
  const Names& wanted_;
  std::vector<AwqStep> steps_;
};

}  // namespace

Names AwqStep::names() const {
  Names out;
  for (const nn::Linear* linear : linears) out.insert(linear->name);
  if (router != nullptr) out.insert(router->name);
  return out;
}

std::int64_t AwqStep::gram_bytes() const {
  // Gate and up of an expert share one.
  const auto inputs = router == nullptr ? 1 : 1 + static_cast<std::int64_t>(linears.size() + 1) / 2;
  return 8 * linears.front()->inputs() * linears.front()->inputs() * inputs;
}

std::vector<AwqStep> awq_steps(nn::Block& block, const Names& wanted) { return Steps(block, wanted).take(); }

std::vector<std::vector<AwqStep>> awq_passes(std::vector<AwqStep> steps) {
  constexpr std::int64_t kMost = std::int64_t{2} << 30;
  std::vector<std::vector<AwqStep>> passes;
  std::int64_t bytes = 0;
  for (AwqStep& step : steps) {
    bytes += step.gram_bytes();
    if (passes.empty() || bytes > kMost) {
      passes.emplace_back();
      bytes = step.gram_bytes();
    }
    passes.back().push_back(std::move(step));
  }
  return passes;
}

AwqModules awq_modules(std::shared_ptr<const Checkpoint> source, Exec& exec) {
  AwqModules out;
  out.linears = block_linears(source, exec);
  const WeightStore weights(std::move(source));
  models::Decoder decoder = models::build_decoder(weights, exec);
  const Names all(out.linears.begin(), out.linears.end());
  for (nn::Block& block : decoder.blocks) {
    for (const std::vector<AwqStep>& pass : awq_passes(awq_steps(block, all))) {
      std::int64_t bytes = 0;
      for (const AwqStep& step : pass) bytes += step.gram_bytes();
      out.gram_bytes = std::max(out.gram_bytes, bytes);
    }
    if (!block.moe.experts.empty()) out.routers.push_back(block.moe.router.name);
    const nn::Mlp& mlp = block.mlp;
    if (mlp.gate.weight.empty() && !mlp.activation_name.empty())
      out.activations.emplace(mlp.down.name, mlp.activation_name);
  }
  return out;
}

}  // namespace nibble
