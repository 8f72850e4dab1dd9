// The JSON text that describes one 4-bit weight.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quant/bnb4/bnb4.h"

namespace nibble::bnb4 {
namespace {

constexpr std::array<std::string_view, 7> kKeys{"quant_type",       "blocksize",    "dtype",        "shape",
                                                "nested_blocksize", "nested_dtype", "nested_offset"};
constexpr std::array<std::int64_t, 8> kBlocks{32, 64, 128, 256, 512, 1024, 2048, 4096};

class State {
 public:
  State(std::string_view text, const std::string& where) : json_(Json::parse(text, where)), where_(where) {
    for (const auto& [key, value] : json_.object(where)) {
      if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
        throw bad_input(where, ": unknown field ", printable(key));
      }
    }
  }

  bool has(std::string_view key) const { return json_.get(key) != nullptr; }
  std::string name(std::string_view key) const { return cat(where_, ": ", key); }
  const Json& at(std::string_view key) const {
    const Json* value = json_.get(key);
    if (value == nullptr) throw bad_input(where_, ": ", key, " is missing");
    return *value;
  }

  std::int64_t block(std::string_view key) const {
    const std::int64_t block = at(key).integer(name(key));
    if (std::find(kBlocks.begin(), kBlocks.end(), block) == kBlocks.end()) {
      throw bad_input(name(key), ": ", block, " (powers of two from 32 to 4096 exist)");
    }
    return block;
  }

  DType dtype(std::string_view key) const {
    const std::string& text = at(key).string(name(key));
    const std::optional<DType> dtype = dtype_from_name(text);
    if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) {
      throw bad_input(name(key), ": ", printable(text), " (float32, float16 and bfloat16 are supported)");
    }
    return *dtype;
  }

 private:
  Json json_;
  const std::string& where_;
};

lut4::Nested parse_nested(const State& state) {
  lut4::Nested nested;
  nested.block = static_cast<std::int32_t>(state.block("nested_blocksize"));
  nested.dtype = state.dtype("nested_dtype");
  const double offset = state.at("nested_offset").number(state.name("nested_offset"));
  if (!(std::abs(offset) <= std::numeric_limits<float>::max())) {
    throw bad_input(state.name("nested_offset"), ": ", offset, " is no float32");
  }
  nested.offset = static_cast<float>(offset);
  return nested;
}

}  // namespace

const std::array<float, 16>* table_of(std::string_view quant_type) {
  if (quant_type == "nf4") return &lut4::kNf4;
  return quant_type == "fp4" ? &lut4::kFp4 : nullptr;
}

QuantState parse_state(std::string_view text, const std::string& where) {
  const State state(text, where);
  QuantState result;
  result.quant_type = state.at("quant_type").string(state.name("quant_type"));
  if (table_of(result.quant_type) == nullptr) {
    throw bad_input(state.name("quant_type"), ": ", printable(result.quant_type), " (nf4 and fp4 exist)");
  }
  result.block = state.block("blocksize");
  result.dtype = state.dtype("dtype");
  const Json::Array& shape = state.at("shape").array(state.name("shape"));
  if (shape.size() != 2) throw bad_input(state.name("shape"), ": ", shape.size(), " dimensions, expected two");
  result.rows = shape[0].integer(state.name("shape"));
  result.cols = shape[1].integer(state.name("shape"));
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  if (result.rows < 1 || result.cols < 1 || result.rows > kMost / result.cols) {
    throw bad_input(state.name("shape"), ": ", to_string({result.rows, result.cols}));
  }
  const bool nested = state.has("nested_blocksize") || state.has("nested_dtype") || state.has("nested_offset");
  if (nested) result.nested = parse_nested(state);
  return result;
}

std::string state_text(const QuantState& state) {
  Json json;
  json.set("quant_type", state.quant_type);
  json.set("blocksize", state.block);
  json.set("dtype", torch_name(state.dtype));
  json.set("shape", Json::Array{state.rows, state.cols});
  if (state.nested) {
    json.set("nested_blocksize", std::int64_t{state.nested->block});
    json.set("nested_dtype", torch_name(state.nested->dtype));
    json.set("nested_offset", static_cast<double>(state.nested->offset));
  }
  return json.dump();
}

}  // namespace nibble::bnb4
