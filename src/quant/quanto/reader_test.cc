// Damaged and contradictory Quanto checkpoints: each is one error that names the file and the module or tensor.
#include "quant/quanto/reader.h"

#include <gtest/gtest.h>

#include "quant/quanto/quantizer.h"
#include "support/test_support.h"

namespace nibble::quanto {
namespace {

struct Part {
  TensorPlan plan;
  unsigned char fill = 0;
};

/// A checkpoint with these tensors and this map; gives the message of loading module "m" as [rows, cols], or "".
std::string message_of(const std::vector<Part>& parts, const std::string& map, LinearSize size) {
  const test::TempDir folder;
  std::vector<TensorPlan> plan;
  for (const Part& part : parts) plan.push_back(part.plan);
  {
    CheckpointWriter writer(folder / "model", plan);
    for (const Part& part : parts) {
      const auto bytes = static_cast<std::size_t>(count_of(part.plan.shape)) * size_of(part.plan.dtype);
      writer.write(part.plan.name, std::vector<std::byte>(bytes, static_cast<std::byte>(part.fill)));
    }
    writer.add_file(std::string(kMapFile), map);
    writer.commit();
  }
  ThreadPool pool(1);
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
  try {
    const WeightStore weights(Checkpoint::open((folder / "model").string()));
    weights.linear("m", exec, size);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input) << error.what();
    return error.what();
  }
}

constexpr const char* kInt8 = R"({"m": {"weights": "qint8", "activations": "none"}})";
constexpr const char* kInt4 = R"({"m": {"weights": "qint4", "activations": "none"}})";

std::vector<Part> int8_parts() {
  return {{{"m.weight._data", DType::i8, {4, 8}}, 1}, {{"m.weight._scale", DType::f32, {4, 1}}, 0x3f}};
}
std::vector<Part> int4_parts() {
  return {{{"m.weight._data._data", DType::u8, {4, 128}}, 0x21},
          {{"m.weight._scale", DType::bf16, {8, 1}}, 0x3f},
          {{"m.weight._shift", DType::bf16, {8, 1}}, 0x3f}};
}

void expect_error(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << "found: " << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST(QuantoReader, SoundModulesLoad) {
  EXPECT_EQ(message_of(int8_parts(), kInt8, {4, 8}), "");
  EXPECT_EQ(message_of(int4_parts(), kInt4, {4, 256}), "");
  EXPECT_EQ(message_of(int4_parts(), kInt4, {8, 128}), "");
  EXPECT_EQ(message_of(int4_parts(), kInt4, {}), "");
}

TEST(QuantoReader, SizesMustAgree) {
  expect_error(message_of(int8_parts(), kInt8, {4, 9}), "m.weight._data: expected [4, 9]");
  for (const LinearSize size : {LinearSize{4, 128}, {16, 128}, {8, 256}, {3, 256}, {8, 100}, {-1, -8}, {1, 1}}) {
    expect_error(message_of(int4_parts(), kInt4, size), "m.weight._data._data");
  }
  auto parts = int8_parts();
  parts[1].plan.shape = {3, 1};
  expect_error(message_of(parts, kInt8, {4, 8}), "m.weight._scale: expected 4 scales");
  parts = int8_parts();
  parts[0].plan.shape = {32};
  expect_error(message_of(parts, kInt8, {4, 8}), "m.weight._data");
  parts = int4_parts();
  parts[2].plan.shape = {4, 1};
  expect_error(message_of(parts, kInt4, {4, 256}), "m.weight._shift: expected 8 shifts");
  parts = int4_parts();
  parts[1].plan.shape = parts[2].plan.shape = {6, 1};
  expect_error(message_of(parts, kInt4, {4, 256}), "m.weight._data._data: expected codes for 6 scales");
  parts = int4_parts();
  parts[0].plan.shape = {0, 128};
  expect_error(message_of(parts, kInt4, {4, 256}), "m.weight._data._data");
}

TEST(QuantoReader, TypesMustAgree) {
  expect_error(message_of(int8_parts(), R"({"m": {"weights": "qfloat8_e5m2", "activations": "none"}})", {4, 8}),
               "f8_e5m2");
  expect_error(message_of(int8_parts(), kInt4, {4, 8}), "m.weight._data._data is missing");
  auto parts = int8_parts();
  parts[1].plan.dtype = DType::i32;
  expect_error(message_of(parts, kInt8, {4, 8}), "m.weight._scale");
  parts = int8_parts();
  parts.pop_back();
  expect_error(message_of(parts, kInt8, {4, 8}), "m.weight._scale is missing");
  parts = int8_parts();
  parts.push_back({{"m.bias", DType::f32, {5}}});
  expect_error(message_of(parts, kInt8, {4, 8}), "m.bias");
}

TEST(QuantoReader, ActivationScalesMustBePositive) {
  const char* map = R"({"m": {"weights": "qint8", "activations": "qint8"}})";
  auto parts = int8_parts();
  EXPECT_EQ(message_of(parts, map, {4, 8}), "") << "scales that are not there are 1";
  parts.push_back({{"m.input_scale", DType::f32, {}}, 0});
  expect_error(message_of(parts, map, {4, 8}), "m.input_scale: scale 0");
  parts.back().fill = 0xff;
  expect_error(message_of(parts, map, {4, 8}), "m.input_scale");
  parts.back() = {{"m.output_scale", DType::f32, {2}}, 0x3f};
  expect_error(message_of(parts, map, {4, 8}), "m.output_scale");
}

TEST(QuantoReader, TheMapIsChecked) {
  for (const char* map : {"[]", "{\"m\": 3}", "{\"m\": {\"weights\": 8}}", "{\"m\": {\"weights\": \"qint3\"}}",
                          R"({"m": {"weights": "qint8", "activations": "qint4"}})", "{", "",
                          R"({"m": {"weights": "qint8"}, "m": {"weights": "qint8"}})"}) {
    expect_error(message_of(int8_parts(), map, {4, 8}), std::string(kMapFile));
  }
  expect_error(message_of(int8_parts(), R"({"m": {"weights": "qint8"}, "gone": {"weights": "qint8"}})", {4, 8}),
               "gone");
}

TEST(QuantoReader, ModulesThatAreNotFrozenAreQuantizedWhenLoaded) {
  const std::vector<Part> parts{{{"m.weight", DType::f32, {4, 256}}, 0x3f}};
  EXPECT_EQ(message_of(parts, kInt4, {4, 256}), "");
  EXPECT_EQ(message_of(parts, kInt8, {4, 256}), "");
  expect_error(message_of(parts, kInt8, {4, 255}), "m.weight");
  expect_error(message_of({{{"m.weight", DType::f32, {4, 256}}, 0xff}}, kInt8, {4, 256}), "row 0 holds a NaN");
}

TEST(QuantoConfig, FieldsAreThoseOfTransformers) {
  const std::string text =
      R"({"quant_method": "quanto", "weights": "float8", "activations": null, "modules_to_not_convert": ["lm_head"]})";
  const Config config = parse_config(Json::parse(text, "config"), "config");
  EXPECT_EQ(config.weights.qtype, QType::qfloat8_e4m3fn);
  EXPECT_FALSE(config.activations.has_value());
  EXPECT_EQ(config_json(config), Json::parse(text, "config"));
  const ModuleSelection selection = selection_of(config);
  EXPECT_TRUE(selection.lm_head) << "an explicit list says all that is kept";
  EXPECT_EQ(selection.exclude, (std::vector<std::string>{"lm_head*", "*lm_head"}));
  EXPECT_FALSE(selection_of({}).lm_head);
  for (const char* bad : {R"({"weights": "int3"})", R"({"weights": 4})", R"({"activations": "int4"})",
                          R"({"quant_method": "gptq"})", R"({"modules_to_not_convert": "lm_head"})", "[]"}) {
    EXPECT_THROW(parse_config(Json::parse(bad, "config"), "config"), Error) << bad;
  }
}

}  // namespace
}  // namespace nibble::quanto
