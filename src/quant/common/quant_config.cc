#include "quant/common/quant_config.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{64} << 20;  // optimum dumps its calibration set into the config

const Json* member(const Json& object, Keys keys, std::string_view* found) {
  for (const std::string_view key : keys) {
    if (const Json* value = object.get(key)) {
      *found = key;
      return value;
    }
  }
  return nullptr;
}

std::string shown(const Json& value) { return printable(value.dump(), 60); }

}  // namespace

std::string lower_case(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  return out;
}

QuantConfig::QuantConfig(const Checkpoint& checkpoint) {
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    std::optional<Json> json = checkpoint.json_file(name, kMaxBytes);
    if (json) sources_.push_back({(checkpoint.folder() / name).string(), *std::move(json)});
  }
  if (const Json* declared = checkpoint.config().get("quantization_config")) {
    sources_.push_back({(checkpoint.folder() / "config.json").string() + ": quantization_config", *declared});
  }
  for (const Source& source : sources_) {
    if (!source.json.is_object()) throw bad_input(source.where, ": not a JSON object");
  }
}

std::string QuantConfig::method() const {
  if (sources_.empty()) return {};
  if (boolean({"awq_gemm_checkpoint"}).value_or(false)) return "awq";
  if (const std::optional<std::string> named = text({"quant_method", "method"})) return *named;
  if (find({"zero_point", "w_bit"})) return "awq";
  return find({"bits", "group_size", "desc_act"}) ? "gptq" : "";
}

std::optional<QuantConfig::Found> QuantConfig::find(Keys keys) const {
  std::string_view key;
  for (const Source& source : sources_) {
    if (const Json* value = member(source.json, keys, &key)) return Found{value, cat(source.where, ": ", key)};
  }
  return std::nullopt;
}

template <class T, class Read>
std::optional<T> QuantConfig::agreed(Keys keys, Read&& read) const {
  std::optional<T> first;
  std::string where;
  std::string_view key;
  for (const Source& source : sources_) {
    const Json* value = member(source.json, keys, &key);
    if (value == nullptr) continue;
    const T own = read(*value, cat(source.where, ": ", key));
    if (first && *first != own) {
      throw bad_input(source.where, ": ", key, " is ", shown(*value), ", but ", where, " differs");
    }
    if (!first) where = cat(key, " in ", source.where);
    first = own;
  }
  return first;
}

std::optional<std::int64_t> QuantConfig::integer(Keys keys) const {
  return agreed<std::int64_t>(keys, [](const Json& value, const std::string& where) { return value.integer(where); });
}

std::optional<bool> QuantConfig::boolean(Keys keys) const {
  return agreed<bool>(keys, [](const Json& value, const std::string& where) { return value.boolean(where); });
}

std::optional<std::string> QuantConfig::text(Keys keys) const {
  return agreed<std::string>(
      keys, [](const Json& value, const std::string& where) { return lower_case(value.string(where)); });
}

}  // namespace nibble
