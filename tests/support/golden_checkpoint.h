// For tests of schemes: a checkpoint that a real library wrote, beside the digests of its dequantized weights
// (golden.json: dequant_fp32_sha256 by module).
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "support/scheme_checks.h"

namespace nibble::test {

inline std::vector<float> values_of(const QTensor& w, Target target, Exec& exec) {
  exec.target = target;
  return decoded(w, exec);
}

/// store(load(x)) == x, tensor by tensor, and nothing of the module is left out.
inline void expect_stored_as_loaded(const WeightStore& weights, const std::string& module, const LinearWeights& linear,
                                    Exec& exec) {
  const std::vector<StoredTensor> stored = weights.scheme()->store(module, linear, exec);
  for (const StoredTensor& tensor : stored) {
    const TensorEntry* original = weights.checkpoint().find(tensor.name);
    ASSERT_NE(original, nullptr) << tensor.name;
    EXPECT_TRUE(same_tensor(tensor.tensor, original->view)) << tensor.name;
  }
  const auto all = weights.checkpoint().tensors();
  const auto count = std::count_if(all.begin(), all.end(), [&](const TensorEntry& tensor) {
    return tensor.name.rfind(module + ".", 0) == 0 && tensor.name.find('.', module.size() + 1) == std::string::npos;
  });
  EXPECT_EQ(static_cast<std::size_t>(count), stored.size()) << module;
}

/// Every module: the golden's bits on every target, and the exact inverse. Gives the number of modules.
inline std::size_t expect_golden_checkpoint(const std::filesystem::path& folder,
                                            const std::filesystem::path& weights_file, std::string_view scheme) {
  QuantMachine m;
  const WeightStore weights(Checkpoint::open(weights_file.string()));
  EXPECT_NE(weights.scheme(), nullptr) << folder;
  if (weights.scheme() == nullptr) return 0;
  EXPECT_EQ(weights.scheme()->name, scheme);
  const Json golden = Json::read(folder / "golden.json");
  const auto& digests = golden.find("dequant_fp32_sha256")->object("dequant_fp32_sha256");
  std::vector<std::string> expected;
  for (const auto& [module, digest] : digests) {
    expected.push_back(module);
    const LinearWeights linear = weights.linear(module, m.exec);
    for (const Target target : {Target::ref, Target::cpu}) {
      const std::vector<float> values = values_of(linear.weight, target, m.exec);
      EXPECT_EQ(sha256(std::as_bytes(std::span(values))), digest.string("digest")) << folder << " " << module;
    }
    expect_stored_as_loaded(weights, module, linear, m.exec);
  }
  EXPECT_EQ(weights.reader()->modules(), expected);
  return expected.size();
}

}  // namespace nibble::test
