// What tests of all schemes do: digests of dequantized weights, and store() as the inverse of load().
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "quant/common/stored_tensor.h"
#include "quant/scheme.h"
#include "support/sha256.h"

namespace nibble::test {

struct QuantMachine {
  explicit QuantMachine(Target target = Target::cpu, int threads = 2, DType compute = DType::bf16)
      : pool(threads), exec{.target = target, .pool = pool, .arena = arena, .compute = compute} {}
  ThreadPool pool;
  Arena arena;
  Exec exec;
};

/// For models whose numbers are compared with goldens.
struct F32Machine : QuantMachine {
  explicit F32Machine(int threads = 2) : QuantMachine(Target::cpu, threads, DType::f32) {}
};

inline std::vector<float> decoded(const QTensor& w, Exec& exec) {
  std::vector<float> values(static_cast<std::size_t>(w.rows * w.cols));
  decode(w, 0, w.rows, values.data(), exec);
  return values;
}

/// SHA-256 of the f32 values.
inline std::string digest_of(const QTensor& w, Exec& exec) {
  return sha256(std::as_bytes(std::span<const float>(decoded(w, exec))));
}

inline bool same_tensor(const View& a, const View& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (a.size_bytes() == 0 || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

using StoreFunction = quant::StoredTensors (*)(const std::string& module, const LinearWeights& linear);

/// Every tensor of every quantized module of the checkpoint comes back with its name, dtype, shape and bytes.
inline void expect_round_trip(const WeightStore& store, StoreFunction write, Exec& exec) {
  ASSERT_NE(store.reader(), nullptr);
  for (const std::string& module : store.reader()->modules()) {
    const quant::StoredTensors stored = write(module, store.linear(module, exec));
    std::size_t expected = 0;
    for (const TensorEntry& entry : store.checkpoint().tensors()) {
      if (entry.name.compare(0, module.size() + 1, module + ".") != 0) continue;
      ++expected;
      const auto found =
          std::find_if(stored.begin(), stored.end(), [&](const auto& t) { return t.name == entry.name; });
      ASSERT_NE(found, stored.end()) << entry.name;
      EXPECT_TRUE(same_tensor(found->view, entry.view)) << entry.name;
    }
    EXPECT_EQ(stored.size(), expected) << module;
  }
}

/// The message of the Error that `act` throws, "" when it throws none. Anything but one line of bad input is a failure.
template <class Act>
std::string error_of(const Act& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2) << error.what();
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << error.what();
    return error.what();
  }
  return "";
}

/// The message with which opening the checkpoint and loading all its modules fails; "" when it does not.
inline std::string refusal(const std::filesystem::path& folder, Exec& exec, LinearSize size = {}) {
  bool plain = false;
  const std::string message = error_of([&] {
    const WeightStore store(Checkpoint::open(folder.string()));
    plain = store.reader() == nullptr;
    if (plain) return;
    for (const std::string& module : store.reader()->modules()) {
      const LinearWeights linear = store.reader()->load(module, size, exec);
      EXPECT_FALSE(store.reader()->describe(module).empty());
      decoded(linear.weight, exec);
    }
  });
  return plain ? "no scheme" : message;
}

/// Whether a message holds `part`.
inline testing::AssertionResult says(const std::string& message, const std::string& part) {
  if (message.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << (message.empty() ? "nothing was refused" : message) << "; expected " << part;
}

}  // namespace nibble::test
