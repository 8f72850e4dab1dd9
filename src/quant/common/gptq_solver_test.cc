// GPTQ's codes are those that AutoGPTQ and GPTQModel chose for the same weight and inputs.
#include "quant/common/gptq_solver.h"

#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/checkpoint.h"
#include "quant/common/inverse_factor.h"
#include "support/scheme_checks.h"
#include "support/test_support.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::QuantMachine;

/// 2 / samples * X'X, for X [tokens, cols].
std::vector<float> gram_of(const View& x, double samples) {
  const std::int64_t cols = x.dim(x.rank() - 1), tokens = x.count() / cols;
  const std::vector<float> values = x.to_f32();
  std::vector<double> sums(static_cast<std::size_t>(cols * cols));
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* row = values.data() + t * cols;
    for (std::int64_t i = 0; i < cols; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        sums[static_cast<std::size_t>(i * cols + j)] += static_cast<double>(row[i]) * static_cast<double>(row[j]);
      }
    }
  }
  std::vector<float> out(sums.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(sums[i] * 2 / samples);
  return out;
}

GptqOptions options_of(const Json& facts) {
  const auto flag = [&](const char* a, const char* b) {
    const Json* value = facts.get(a) != nullptr ? facts.get(a) : facts.get(b);
    return value != nullptr && value->boolean(a);
  };
  GptqOptions options;
  options.bits = static_cast<std::int32_t>(facts.find("bits")->integer("bits"));
  const Json* group = facts.get("group") != nullptr ? facts.get("group") : facts.get("group_size");
  options.group = group->integer("group");
  options.sym = facts.find("sym")->boolean("sym");
  options.desc_act = flag("desc", "desc_act");
  options.static_groups = flag("static", "static_groups");
  if (const Json* damp = facts.get("damp")) options.damp = damp->number("damp");
  if (const Json* mse = facts.get("mse")) options.mse_norm = mse->number("mse");
  return options;
}

struct Differences {
  std::int64_t codes = 0, of = 0;
};

Differences compare(const Checkpoint& golden, const std::string& name, const GptqResult& got) {
  Differences out;
  const View& codes = golden.at(name + ".codes");
  out.of = codes.count();
  for (std::int64_t i = 0; i < codes.count(); ++i) {
    out.codes += static_cast<std::uint8_t>(codes.at(i)) != got.codes[static_cast<std::size_t>(i)] ? 1 : 0;
  }
  EXPECT_LT(test::relative_error(got.scale, golden.at(name + ".scale").to_f32()), 2e-6) << name;
  const std::vector<float> groups = golden.at(name + ".g_idx").to_f32();
  for (std::size_t k = 0; k < groups.size(); ++k) {
    EXPECT_EQ(static_cast<float>(got.g_idx[k]), groups[k]) << name << " input " << k;
  }
  return out;
}

TEST(GptqSolver, CodesAreAutoGptqs) {
  const auto golden = Checkpoint::open(test::data("gptq/numerics.safetensors").string());
  const Json cases = Json::read(test::data("gptq/numerics.json"));
  const std::vector<float> weight = golden->at("W").to_f32(), gram = gram_of(golden->at("X"), 8);
  for (const auto& [name, facts] : cases.object("cases")) {
    QuantMachine one(Target::cpu, 1), two(Target::cpu, 2);
    const GptqOptions options = options_of(facts);
    const GptqResult got = gptq_quantize(weight, golden->at("W").dim(0), gram, options, one.exec);
    const Differences differences = compare(*golden, name, got);
    EXPECT_LE(differences.codes * 1000, differences.of) << name << ": " << differences.codes << " codes";
    EXPECT_EQ(got.codes, gptq_quantize(weight, golden->at("W").dim(0), gram, options, two.exec).codes) << name;
    EXPECT_EQ(got.damp, options.damp);
    EXPECT_FALSE(got.rounded);
  }
}

TEST(GptqSolver, CodesAndHessiansOfBothLibraries) {
  NIBBLE_NEED_SHARED(root, "fixtures/gptq_awq/numerics");
  const auto autogptq = Checkpoint::open((root / "gptq_autogptq.safetensors").string());
  const std::vector<float> weight = autogptq->at("W").to_f32();
  std::int64_t checked = 0, different = 0;
  for (const char* library : {"gptq_autogptq", "gptq_gptqmodel"}) {
    const auto golden = Checkpoint::open((root / library).string() + ".safetensors");
    const bool tokens = std::string(library) == "gptq_gptqmodel";
    const std::vector<float> gram = gram_of(autogptq->at("X"), tokens ? 384 : 8);
    EXPECT_LT(test::relative_error(gram, golden->at("H").to_f32()), 1e-6) << library;
    const Json cases = Json::read((root / library).string() + ".json");
    for (const auto& [name, facts] : cases.object("cases")) {
      if (tokens && facts.get("mse") != nullptr && facts.find("mse")->number("mse") > 0) continue;  // its own search
      QuantMachine machine;
      GptqOptions options = options_of(facts);
      options.act_group_aware = name.find("_gar") != std::string::npos;
      const Differences d = compare(*golden, name, gptq_quantize(weight, 48, gram, options, machine.exec));
      EXPECT_LE(d.codes * 1000, d.of) << library << " " << name << ": " << d.codes << " codes";
      checked += d.of;
      different += d.codes;
    }
  }
  EXPECT_GT(checked, 150000);
  EXPECT_LE(different * 10000, checked) << different << " of " << checked;
}

TEST(InverseFactor, IsTheFactorOfTheInverse) {
  for (const std::int64_t n : {1, 5, 128, 300}) {
    std::vector<float> x(static_cast<std::size_t>(n * n)), h(x.size());
    std::uint32_t state = 7;
    for (float& value : x) {
      state = state * 1664525U + 1013904223U;
      value = static_cast<float>(state >> 8) / 8388608.0F - 1;
    }
    const auto at = [n](std::vector<float>& m, std::int64_t i, std::int64_t j) -> float& {
      return m[static_cast<std::size_t>(i * n + j)];
    };
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = i == j ? 1 : 0;
        for (std::int64_t k = 0; k < n; ++k)
          sum += static_cast<double>(at(x, i, k)) * static_cast<double>(at(x, j, k)) / 8;
        at(h, i, j) = static_cast<float>(sum);
      }
    }
    std::vector<float> u = h;
    QuantMachine machine;
    ASSERT_TRUE(inverse_upper_factor(u, n, machine.exec));
    // U H U^T = 1, since H^-1 = U^T U.
    double worst = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      std::vector<double> uh(static_cast<std::size_t>(n));
      for (std::int64_t k = 0; k < n; ++k) {
        for (std::int64_t j = 0; j < n; ++j)
          uh[static_cast<std::size_t>(j)] += static_cast<double>(at(u, i, k)) * static_cast<double>(at(h, k, j));
      }
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = i == j ? -1 : 0;
        for (std::int64_t k = 0; k < n; ++k) sum += uh[static_cast<std::size_t>(k)] * static_cast<double>(at(u, j, k));
        worst = std::max(worst, std::abs(sum));
        if (j < i) {
          EXPECT_EQ(at(u, i, j), 0);
        }
      }
    }
    EXPECT_LT(worst, 2e-4) << n;
  }
  std::vector<float> indefinite{1, 2, 2, 1};
  QuantMachine machine;
  EXPECT_FALSE(inverse_upper_factor(indefinite, 2, machine.exec));
}

/// What data can do to the matrix: dead inputs, one token repeated, nothing at all.
TEST(GptqSolver, SingularMatricesAreDampedOrRounded) {
  const std::int64_t rows = 32, cols = 64;
  std::vector<float> weight(static_cast<std::size_t>(rows * cols)), gram(static_cast<std::size_t>(cols * cols));
  for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = std::sin(static_cast<float>(i));
  QuantMachine machine;
  GptqOptions options;
  options.group = 32;
  const GptqResult nothing = gptq_quantize(weight, rows, gram, options, machine.exec);
  EXPECT_EQ(nothing.dead, cols) << "every input is dead";
  for (const std::uint8_t code : nothing.codes) EXPECT_EQ(code, 8);

  for (std::int64_t i = 0; i < cols * cols; ++i) gram[static_cast<std::size_t>(i)] = 1;  // one token, of ones
  const GptqResult repeated = gptq_quantize(weight, rows, gram, options, machine.exec);
  EXPECT_FALSE(repeated.rounded);
  EXPECT_EQ(repeated.dead, 0);

  for (std::int64_t i = 0; i < cols; ++i) gram[static_cast<std::size_t>(i * cols + i)] = 0.9F;  // not positive definite
  options.damp = 0;
  const GptqResult damped = gptq_quantize(weight, rows, gram, options, machine.exec);
  EXPECT_GT(damped.damp, 0.1);
  EXPECT_FALSE(damped.rounded);

  for (std::int64_t i = 0; i < cols * cols; ++i) gram[static_cast<std::size_t>(i)] = i % (cols + 1) == 0 ? 1.0F : -5.0F;
  for (const std::int64_t group : {std::int64_t{32}, std::int64_t{-1}}) {
    for (const bool desc_act : {false, true}) {
      options.group = group;
      options.desc_act = desc_act;
      options.mse_norm = 0;
      const GptqResult fallback = gptq_quantize(weight, rows, gram, options, machine.exec);
      EXPECT_TRUE(fallback.rounded);
      options.mse_norm = 2.4;
      const GptqResult searched = round_to_nearest(weight, rows, options, machine.exec);
      EXPECT_FALSE(searched.rounded);
      EXPECT_EQ(fallback.codes, searched.codes);
      EXPECT_EQ(fallback.scale, searched.scale);
      EXPECT_EQ(fallback.g_idx, searched.g_idx);
    }
  }
}

TEST(GptqSolver, RefusesGroupsThatDoNotDivide) {
  GptqOptions options;
  options.group = 48;
  EXPECT_THROW(check_gptq_options(options, 64), Error);
  options.group = -1;
  EXPECT_NO_THROW(check_gptq_options(options, 64));
  options.bits = 9;
  EXPECT_THROW(check_gptq_options(options, 64), Error);
}

}  // namespace
}  // namespace nibble
