// Typed, range-checked access to the fields of one JSON object, with every spelling a field is known under.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "device/device.h"

namespace nibble::models {

/// The spellings of a field; the first that is present (and not null) counts.
using Keys = std::vector<std::string_view>;

/// An activation by its Transformers name; `where` begins the message when there is none of this name.
Activation activation_named(std::string_view name, std::string_view where);

class ConfigReader {
 public:
  /// `where` begins messages: the file, and for a nested object its field. Both arguments must outlive the reader.
  ConfigReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  /// nullptr when absent or null.
  const Json* find(const Keys& keys) const;
  bool has(const Keys& keys) const { return find(keys) != nullptr; }

  /// An integer in [low, high]; absent: `otherwise`, or an error when that is nullopt.
  std::int64_t integer(const Keys& keys, std::int64_t low, std::int64_t high,
                       std::optional<std::int64_t> otherwise = std::nullopt) const;
  /// A finite number in [low, high].
  double number(const Keys& keys, double low, double high, std::optional<double> otherwise = std::nullopt) const;
  bool boolean(const Keys& keys, bool otherwise) const;
  std::string text(const Keys& keys, std::string_view otherwise) const;
  /// An activation by its Transformers name ("silu", "gelu_new", ...).
  Activation activation(const Keys& keys, std::string_view otherwise) const;
  /// dtype or torch_dtype; nullopt when absent or "auto".
  std::optional<DType> float_type() const;

  /// "config.json: field hidden_size"
  std::string field(std::string_view key) const;
  const Json& object() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  struct Found {
    std::string_view key;
    const Json* value;
  };
  Found look(const Keys& keys) const;
  const Json& object_;
  std::string where_;
};

}  // namespace nibble::models
