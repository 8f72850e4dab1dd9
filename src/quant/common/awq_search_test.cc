// AWQ's search gives AutoAWQ's bits where it rounds as AutoAWQ does, and its errors, taken from a Gram matrix, are
// those of the outputs.
#include "quant/common/awq_search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"
#include "quant/common/awq_grid.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

using test::QuantMachine;
using Floats = std::vector<float>;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }
AwqWeight weight_of(const Floats& values, std::int64_t cols) {
  return {values.data(), static_cast<std::int64_t>(values.size()) / cols};
}
std::int64_t differences(const Floats& a, const Floats& b) {
  EXPECT_EQ(a.size(), b.size());
  std::int64_t count = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}

/// What AutoAWQ saw, chose and stored for tiny-llama with groups of one size.
struct Library {
  explicit Library(std::int64_t size)
      : group(size),
        model(Checkpoint::open(test::data("awq/search/model").string())),
        golden(Checkpoint::open(test::data(cat("awq/search/g", size, ".safetensors")).string())),
        losses(Json::read(test::data("awq/search/losses.json"))) {}

  Floats of(const std::string& name) const { return golden->at(name).to_f32(); }
  Floats weight(const std::string& layer, const std::string& module) const {
    return model->at("model." + layer + "." + module + ".weight").to_f32();
  }
  /// The ratio of the smallest loss of a search step.
  double ratio(const std::string& step) const {
    const Json::Array& all = losses.find(cat("g", group))->find(step)->array(step);
    std::size_t best = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].number(step) < all[best].number(step)) best = i;
    }
    return static_cast<double>(best) / 20;
  }

  std::int64_t group;
  std::shared_ptr<const Checkpoint> model, golden;
  Json losses;
};

struct Step {
  const char* key;
  std::vector<const char*> modules;
};
const Step kSteps[] = {{"self_attn.q_proj", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
                       {"mlp.gate_proj", {"mlp.gate_proj", "mlp.up_proj"}},
                       {"mlp.down_proj", {"mlp.down_proj"}}};

TEST(AwqSearch, MeansAndScalesAreAutoAwqs) {
  QuantMachine machine(Target::cpu, 2);
  for (const std::int64_t group : {128, 64}) {
    const Library library(group);
    for (const char* layer : {"layers.0", "layers.1"}) {
      for (const Step& step : kSteps) {
        const std::string key = cat(layer, ".", step.key);
        const Floats x_mean = library.of("awq.x_mean." + key), w_mean = library.of("awq.w_mean." + key);
        std::vector<Floats> values;
        std::vector<AwqWeight> weights;
        const auto cols = static_cast<std::int64_t>(x_mean.size());
        for (const char* module : step.modules) values.push_back(library.weight(layer, module));
        for (const Floats& w : values) weights.push_back(weight_of(w, cols));
        const Floats mean = awq_weight_mean(weights, cols, group, AwqArithmetic::f16, machine.pool);
        EXPECT_EQ(differences(mean, w_mean), 0) << key;
        const Floats scales = awq_scales(x_mean, w_mean, library.ratio(key), true, AwqArithmetic::f16);
        EXPECT_EQ(differences(scales, library.of("awq.scale." + key)), 0) << key;
        const Floats exact = awq_scales(x_mean, w_mean, library.ratio(key), true, AwqArithmetic::f32);
        EXPECT_LT(test::relative_error(exact, scales), 5e-3) << key;
      }
    }
  }
}

/// The same search for a bound, over inputs [tokens, cols] instead of their Gram matrix. With AwqF16 every operation is
/// rounded as AutoAWQ's are.
template <class A>
Floats clip_by_tokens(const Floats& w, const Floats& x, std::int64_t cols, std::int64_t group) {
  const std::int64_t rows = static_cast<std::int64_t>(w.size()) / cols, groups = cols / group;
  const std::int64_t tokens = static_cast<std::int64_t>(x.size()) / cols;
  Floats bounds(at(rows * groups)), rounded(at(group)), org(at(tokens));
  const auto part = [&](const float* values, std::int64_t t, std::int64_t first) {
    float sum = 0;
    for (std::int64_t k = 0; k < group; ++k) sum += A::round(x[at(t * cols + first + k)] * values[k]);
    return A::round(sum);
  };
  for (std::int64_t i = 0; i < rows * groups; ++i) {
    const float* from = w.data() + i * group;
    const std::int64_t first = i % groups * group;
    for (std::int64_t t = 0; t < tokens; ++t) org[at(t)] = part(from, t, first);
    const AwqRange range = awq_range(from, group);
    const float largest = std::max(-range.low, range.high);
    float smallest = A::round(1e9F);
    bounds[at(i)] = largest;
    for (int share = 0; share < 10; ++share) {
      const float limit = A::round(largest * (1 - static_cast<float>(share) / 20));
      for (std::int64_t k = 0; k < group; ++k) rounded[at(k)] = std::clamp(from[k], -limit, limit);
      const AwqGrid grid = awq_grid<A>(awq_range(rounded.data(), group));
      for (float& v : rounded) v = awq_value<A>(awq_code<A>(v, grid), grid);
      float error = 0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        const float d = A::round(part(rounded.data(), t, first) - org[at(t)]);
        error += A::round(d * d);
      }
      error = A::round(error / static_cast<float>(tokens));
      if (!(error < smallest)) continue;
      smallest = error;
      bounds[at(i)] = limit;
    }
  }
  return bounds;
}

Floats divided(const Floats& x, const Floats& scales, bool f16) {
  Floats out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float value = x[i] / scales[i % scales.size()];
    out[i] = f16 ? rounding::F16::round(value) : value;
  }
  return out;
}
Floats multiplied(const Floats& w, const Floats& scales) {
  Floats out(w.size());
  for (std::size_t i = 0; i < w.size(); ++i) out[i] = rounding::F16::round(w[i] * scales[i % scales.size()]);
  return out;
}
/// Every n-th token, as AutoAWQ takes them for the clip search.
Floats some_tokens(const Floats& x, std::int64_t cols) {
  const std::int64_t tokens = static_cast<std::int64_t>(x.size()) / cols,
                     stride = std::max<std::int64_t>(1, tokens / 512);
  Floats out;
  for (std::int64_t t = 0; t < tokens; t += stride)
    out.insert(out.end(), x.begin() + t * cols, x.begin() + (t + 1) * cols);
  return out;
}
/// The lower triangle of X'X.
std::vector<double> gram_of(const Floats& x, std::int64_t cols) {
  std::vector<double> out(at(cols * cols));
  for (std::size_t t = 0; t < x.size(); t += at(cols)) {
    for (std::int64_t i = 0; i < cols; ++i) {
      for (std::int64_t j = 0; j <= i; ++j)
        out[at(i * cols + j)] += static_cast<double>(x[t + at(i)]) * static_cast<double>(x[t + at(j)]);
    }
  }
  return out;
}

TEST(AwqSearch, ClipsAndCodesAreAutoAwqs) {
  QuantMachine machine(Target::cpu, 2);
  const Floats inputs =
      Checkpoint::open(test::data("awq/search/inputs.safetensors").string())->at("self_attn.k_proj.input").to_f32();
  constexpr std::int64_t kCols = 256;
  for (const std::int64_t group : {128, 64}) {
    const Library library(group);
    const Floats scales = library.of("awq.scale.layers.0.self_attn.q_proj");
    const Floats norm = library.weight("layers.0", "input_layernorm");
    EXPECT_EQ(differences(divided(norm, scales, true), library.of("input_layernorm")), 0);
    const Floats x = some_tokens(divided(inputs, scales, true), kCols);
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      const Floats w = multiplied(library.weight("layers.0", cat("self_attn.", name)), scales);
      Floats clip;
      if (std::string_view(name) == "v_proj") {
        clip = clip_by_tokens<AwqF16>(w, x, kCols, group);
        const Floats theirs = library.of("awq.clip.layers.0.self_attn.v_proj");
        EXPECT_EQ(differences(clip, theirs), 0);
        const std::vector<double> gram = gram_of(x, kCols);
        const Floats ones(kCols, 1.0F);
        const Floats ours =
            awq_clip(weight_of(w, kCols), kCols, group, awq_group_grams(gram, kCols, group, 1, ones), machine.exec);
        std::int64_t far = 0;
        for (std::size_t i = 0; i < ours.size(); ++i) far += std::fabs(ours[i] / theirs[i] - 1) > 1e-3F ? 1 : 0;
        EXPECT_LE(far, static_cast<std::int64_t>(ours.size()) / 8) << "rounding to f16 decides few of the bounds";
      }
      const GridCodes got = awq_round(weight_of(w, kCols), kCols, group, clip, AwqArithmetic::f16, machine.pool);
      EXPECT_EQ(differences(Floats(got.codes.begin(), got.codes.end()), library.of(cat(name, ".codes"))), 0) << name;
      EXPECT_EQ(differences(got.zero, library.of(cat(name, ".zeros"))), 0) << name;
      EXPECT_EQ(differences(got.scale, library.of(cat(name, ".scales"))), 0) << name;
    }
  }
}

Floats normal(std::int64_t count, std::uint64_t seed, double spread = 1) {
  Rng rng(seed);
  Floats out(at(count));
  for (float& v : out) v = static_cast<float>(spread * rng.normal());
  return out;
}

/// Inputs of which some are far larger than others, and a weight.
struct Layer {
  static constexpr std::int64_t kRows = 24, kCols = 320, kTokens = 100;
  Layer() {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] *= i % kCols % 37 == 0 ? 30.0F : 1.0F;
    gram = gram_of(x, kCols);
    x_mean.assign(kCols, 0);
    for (std::size_t i = 0; i < x.size(); ++i) x_mean[i % kCols] += std::fabs(x[i]) / kTokens;
  }
  AwqWeight weight() const { return weight_of(w, kCols); }
  Floats x = normal(kTokens * kCols, 1), w = normal(kRows * kCols, 2, 0.05), x_mean;
  std::vector<double> gram;
};

/// What the change of a weight changes in the outputs, summed over tokens and outputs.
double output_error(const Layer& layer, const Floats& changed) {
  double total = 0;
  for (std::int64_t t = 0; t < Layer::kTokens; ++t) {
    for (std::int64_t r = 0; r < Layer::kRows; ++r) {
      double sum = 0;
      for (std::int64_t k = 0; k < Layer::kCols; ++k) {
        const std::size_t i = at(r * Layer::kCols + k);
        sum += static_cast<double>(layer.x[at(t * Layer::kCols + k)]) *
               (static_cast<double>(changed[i]) - static_cast<double>(layer.w[i]));
      }
      total += sum * sum;
    }
  }
  return total;
}

TEST(AwqSearch, TheGramMatrixGivesTheErrorOfTheOutputs) {
  QuantMachine machine(Target::cpu, 2), alone(Target::cpu, 1);
  const Layer layer;
  const GramForm form(layer.gram, Layer::kCols, 1, machine.pool);
  const Floats w_mean = awq_weight_mean({{layer.weight()}}, Layer::kCols, 32, AwqArithmetic::f32, machine.pool);
  const Floats scales = awq_scales(layer.x_mean, w_mean, 0.5, true, AwqArithmetic::f32);
  const double loss = awq_rounding_loss(layer.weight(), scales, 32, form, machine.exec);
  const double seen = output_error(layer, awq_rounded(layer.weight(), scales, 32, machine.pool));
  EXPECT_NEAR(loss / seen, 1, 1e-5);
  EXPECT_EQ(loss, awq_rounding_loss(layer.weight(), scales, 32, GramForm(layer.gram, Layer::kCols, 1, alone.pool),
                                    alone.exec));
}

TEST(AwqSearch, ScalesAndBoundsLowerTheError) {
  QuantMachine machine(Target::cpu, 2), alone(Target::cpu, 1);
  const Layer layer;
  const GramForm form(layer.gram, Layer::kCols, 1, machine.pool);
  const Floats w_mean = awq_weight_mean({{layer.weight()}}, Layer::kCols, 64, AwqArithmetic::f32, machine.pool);
  for (const bool duo : {false, true}) {
    const AwqScales found = awq_search(layer.x_mean, w_mean, duo, [&](std::span<const float> scales) {
      return awq_rounding_loss(layer.weight(), scales, 64, form, machine.exec);
    });
    EXPECT_GT(found.ratio, 0);
    EXPECT_LT(found.loss, 0.6 * found.plain_loss) << duo;
    EXPECT_EQ(found.loss, awq_rounding_loss(layer.weight(), found.scales, 64, form, machine.exec));
  }
  const Floats ones(Layer::kCols, 1.0F);
  const Floats blocks = awq_group_grams(layer.gram, Layer::kCols, 64, 1, ones);
  const Floats bounds = awq_clip(layer.weight(), Layer::kCols, 64, blocks, machine.exec);
  EXPECT_EQ(bounds, awq_clip(layer.weight(), Layer::kCols, 64, blocks, alone.exec));
  const Floats by_tokens = clip_by_tokens<AwqF32>(layer.w, layer.x, Layer::kCols, 64);
  EXPECT_LE(differences(bounds, by_tokens), 1) << "the same search over tokens";
  EXPECT_GT(differences(bounds, awq_clip(layer.weight(), Layer::kCols, 64, Floats(blocks.size()), machine.exec)), 30)
      << "without inputs nothing is clipped";
}

TEST(AwqSearch, ConstantsAndZeros) {
  QuantMachine machine(Target::cpu, 2);
  constexpr std::int64_t kCols = 64;
  for (const float value : {0.0F, 0.75F, -3.0F, 1e-7F}) {
    const Floats w(4 * kCols, value);
    const GridCodes got = awq_round(weight_of(w, kCols), kCols, kCols, {}, AwqArithmetic::f32, machine.pool);
    for (std::size_t i = 0; i < w.size(); ++i) {
      const float back = got.scale[i / kCols] * (static_cast<float>(got.codes[i]) - got.zero[i / kCols]);
      EXPECT_NEAR(back, value, std::max(1e-3F * std::fabs(value), 1e-6F));
    }
  }
  const Floats none(kCols, 0.0F), ones(kCols, 1.0F);
  for (const double ratio : {0.0, 0.5, 0.95}) {
    EXPECT_EQ(awq_scales(none, ones, ratio, true, AwqArithmetic::f32), ones) << "inputs that are always zero";
    Floats some = ones;
    some[3] = 0;
    some[5] = 16;
    const Floats scales = awq_scales(some, none, ratio, true, AwqArithmetic::f32);
    for (const float s : scales) EXPECT_TRUE(std::isfinite(s) && s > 0) << s;
    EXPECT_EQ(scales[3], 1);
  }
  const Floats huge{0, 1e7F, -1e7F, 5};
  EXPECT_TRUE(std::isinf(awq_round(weight_of(huge, 4), 4, 4, {}, AwqArithmetic::f32, machine.pool).scale[0]));
}

}  // namespace
}  // namespace nibble
