// What optimum-quanto saved is read with its own dequantized bits, and what nibble writes from the same floats has the
// library's bytes.
#include <gtest/gtest.h>

#include <cstring>

#include "layout/layout.h"
#include "quant/quanto/reader.h"
#include "support/sha256.h"
#include "support/test_support.h"

namespace nibble::quanto {
namespace {

using test::data;

struct Variant {
  std::string name, base, checkpoint, weights;
  std::vector<std::pair<std::string, std::string>> digests;  ///< of dequantized weights, by module
};

std::vector<Variant> variants() {
  const Json index = Json::read(data("quanto/index.json"));
  std::vector<Variant> out;
  for (const Json& v : index.find("variants")->array("variants")) {
    const auto text = [&](const char* key) { return v.find(key)->string(key); };
    Variant variant{text("name"), text("base"), text("ckpt"), text("weights"), {}};
    for (const auto& [module, digest] : v.find("dequant_sha256_fp32")->object("digests")) {
      variant.digests.emplace_back(module, digest.string("digest"));
    }
    out.push_back(variant);
  }
  return out;
}

struct Machine {
  explicit Machine(int threads = 2) : pool(threads) {}
  ThreadPool pool;
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
};

std::string digest_of(const QTensor& w, Exec& exec) {
  std::vector<float> values(static_cast<std::size_t>(w.rows * w.cols));
  decode(w, 0, w.rows, values.data(), exec);
  return test::sha256(std::as_bytes(std::span(values)));
}

TEST(QuantoFixtures, DequantizedWeightsHaveTheLibrarysBits) {
  Machine machine;
  const std::vector<Variant> all = variants();
  ASSERT_EQ(all.size(), 6U);
  for (const Variant& variant : all) {
    const WeightStore store(Checkpoint::open(data("quanto/" + variant.checkpoint).string()));
    ASSERT_NE(store.scheme(), nullptr);
    EXPECT_EQ(store.scheme()->name, "quanto");
    const auto base = Checkpoint::open(data("quanto/" + variant.base).string());
    ASSERT_EQ(variant.digests.size(), 15U);
    for (const auto& [module, digest] : variant.digests) {
      const Shape& shape = base->at(module + ".weight").shape();
      const LinearWeights linear = store.linear(module, machine.exec, {shape[0], shape[1]});
      EXPECT_EQ(linear.weight.rows, shape[0]);
      EXPECT_EQ(linear.weight.cols, shape[1]);
      EXPECT_EQ(digest_of(linear.weight, machine.exec), digest) << variant.name << " " << module;
      EXPECT_EQ(digest_of(store.linear(module, machine.exec).weight, machine.exec), digest) << "size not told";
    }
  }
}

void expect_same(const View& got, const View& expected, const std::string& what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  ASSERT_EQ(got.dtype(), expected.dtype()) << what;
  std::size_t differ = 0;
  for (std::size_t i = 0; i < got.size_bytes(); ++i) differ += got.data()[i] != expected.data()[i] ? 1 : 0;
  EXPECT_EQ(differ, 0U) << what << ": of " << got.size_bytes() << " bytes";
}

TEST(QuantoFixtures, WrittenTensorsHaveTheLibrarysBytes) {
  for (const int threads : {1, 2}) {
    Machine machine(threads);
    for (const Variant& variant : variants()) {
      const auto golden = Checkpoint::open(data("quanto/" + variant.checkpoint).string());
      const auto base = Checkpoint::open(data("quanto/" + variant.base).string());
      const WeightSpec spec{.qtype = qtype_from_name(variant.weights).value()};
      for (const auto& [module, digest] : variant.digests) {
        const View& weight = base->at(module + ".weight");
        const StoredWeight stored = quantize_weight(spec, weight, module, machine.pool);
        const std::vector<TensorPlan> parts = stored_parts(module, spec, weight.shape(), weight.dtype());
        const View* views[] = {&stored.data.view(), &stored.scale.view(), &stored.shift.view()};
        ASSERT_EQ(parts.size(), is_packed(spec.qtype) ? 3U : 2U);
        for (std::size_t i = 0; i < parts.size(); ++i) {
          EXPECT_EQ(parts[i].shape, views[i]->shape());
          EXPECT_EQ(parts[i].dtype, views[i]->dtype());
          expect_same(*views[i], golden->at(parts[i].name), variant.name + " " + parts[i].name);
        }
      }
    }
  }
}

TEST(QuantoFixtures, StoreIsTheInverseOfLoad) {
  Machine machine;
  for (const Variant& variant : variants()) {
    const auto golden = Checkpoint::open(data("quanto/" + variant.checkpoint).string());
    const auto base = Checkpoint::open(data("quanto/" + variant.base).string());
    const WeightStore weights(golden);
    for (const auto& [module, digest] : variant.digests) {
      const Shape& shape = base->at(module + ".weight").shape();
      LinearWeights linear = weights.linear(module, machine.exec, {shape[0], shape[1]});
      std::size_t expected = 0;
      for (const TensorEntry& entry : golden->tensors()) expected += entry.name.rfind(module + ".", 0) == 0 ? 1 : 0;
      for (const bool recorded : {true, false}) {
        if (!recorded) linear.record = nullptr;
        const std::vector<StoredTensor> stored = weights.scheme()->store(module, linear, machine.exec);
        EXPECT_EQ(stored.size(), expected) << module;
        for (const StoredTensor& tensor : stored)
          expect_same(tensor.tensor.view(), golden->at(tensor.name), tensor.name);
      }
    }
  }
}

TEST(QuantoFixtures, ActivationScalesAreRead) {
  Machine machine;
  const WeightStore store(Checkpoint::open(data("quanto/ckpt/quanto_int8_actint8_fp32").string()));
  const LinearWeights linear = store.linear("model.layers.0.self_attn.q_proj", machine.exec, {256, 256});
  ASSERT_TRUE(linear.activation.has_value());
  EXPECT_EQ(linear.activation->qtype, DType::i8);
  EXPECT_EQ(linear.activation->input_scale, store.at("model.layers.0.self_attn.q_proj.input_scale").at(0));
  EXPECT_LT(linear.activation->input_scale, 1);
  EXPECT_EQ(store.reader()->describe("lm_head"), "qint8, per row, activations qint8");
}

}  // namespace
}  // namespace nibble::quanto
