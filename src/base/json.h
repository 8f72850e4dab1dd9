// A JSON value that keeps the order of object members: what config.json needs so that fields survive a load and save.
// Parsing is simdjson's (strict RFC 8259, depth limited); a duplicate key is an error, since two readers may see two
// values.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace nibble {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(std::int64_t value) : value_(value) {}
  Json(int value) : value_(static_cast<std::int64_t>(value)) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}

  /// Parses `text`; `where` (a file name) begins every message. Throws Error(bad_input) on anything but one JSON
  /// document in valid UTF-8 with unique keys. Integers beyond 64 bits become doubles.
  static Json parse(std::string_view text, std::string_view where);
  /// The same for a file of at most `max_bytes`.
  static Json read(const std::filesystem::path& file, std::int64_t max_bytes = std::int64_t{1} << 30);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }
  bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  /// The value as a type; throws Error(bad_input, "<where>: expected a ..., found a ...") when it is another.
  bool boolean(std::string_view where) const;
  std::int64_t integer(std::string_view where) const;  ///< also a double without fraction that fits
  double number(std::string_view where) const;
  const std::string& string(std::string_view where) const;
  const Array& array(std::string_view where) const;
  const Object& object(std::string_view where) const;
  Array& array(std::string_view where);
  Object& object(std::string_view where);

  /// Member of an object; nullptr when this is no object or has no such member.
  const Json* find(std::string_view key) const;
  /// Like find, but a member that is null counts as absent: how Python's config.get(key) or default reads.
  const Json* get(std::string_view key) const;
  /// Sets a member, keeping its place when it exists and appending when not. This must be an object (or null, which
  /// becomes one).
  void set(std::string_view key, Json value);
  /// Removes a member; true when it was there.
  bool erase(std::string_view key);

  /// Text: `indent` spaces per level, or one line when 0 (", " and ": " separators as Python's json.dumps). ASCII only
  /// when `ascii` (Python's ensure_ascii). Doubles are written with the fewest digits that read back the same.
  std::string dump(int indent = 0, bool ascii = false) const;

  bool operator==(const Json&) const = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> value_;
};

}  // namespace nibble
