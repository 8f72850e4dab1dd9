#include "base/json.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxDepth = 256;

Json convert(simdjson::dom::element element, std::string_view where);

Json convert_object(simdjson::dom::object object, std::string_view where) {
  constexpr std::size_t small = 16;  // up to here a linear search is faster than a hash table
  Json::Object members;
  members.reserve(object.size());
  std::unordered_set<std::string_view> seen;
  if (object.size() > small) seen.reserve(object.size());
  for (const auto field : object) {
    const auto same = [&](const Json::Member& member) { return member.first == field.key; };
    const bool twice =
        object.size() > small ? !seen.insert(field.key).second : std::any_of(members.begin(), members.end(), same);
    if (twice) throw bad_input(where, ": duplicate key \"", printable(field.key), "\"");
    members.emplace_back(std::string(field.key), convert(field.value, where));
  }
  return members;
}

Json convert(simdjson::dom::element element, std::string_view where) {
  using Type = simdjson::dom::element_type;
  switch (element.type()) {
    case Type::OBJECT: return convert_object(element, where);
    case Type::ARRAY: {
      Json::Array items;
      items.reserve(simdjson::dom::array(element).size());
      for (const simdjson::dom::element item : simdjson::dom::array(element)) items.push_back(convert(item, where));
      return items;
    }
    case Type::STRING: return std::string_view(element);
    case Type::INT64: return std::int64_t(element);
    case Type::UINT64: return static_cast<double>(std::uint64_t(element));
    case Type::DOUBLE: return double(element);
    case Type::BOOL: return bool(element);
    case Type::NULL_VALUE: return {};
  }
  return {};
}

void write_string(std::string& out, std::string_view text, bool ascii) {
  static constexpr char hex[] = "0123456789abcdef";
  static constexpr std::string_view special = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
  const auto escape = [&](char32_t unit) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += hex[unit >> shift & 15];
  };
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const std::size_t length = std::max<std::size_t>(1, utf8_length(text.substr(at)));
    if (const std::size_t found = special.find(c); found != std::string_view::npos) {
      out += {'\\', letters[found]};
    } else if (static_cast<unsigned char>(c) < 0x20 || (c == 0x7f && ascii)) {
      escape(static_cast<unsigned char>(c));
    } else if (length > 1 && ascii) {
      const char32_t code = utf8_decode(text.substr(at), length);
      if (code >= 0x10000) {
        escape(0xd800 + ((code - 0x10000) >> 10));
        escape(0xdc00 + ((code - 0x10000) & 0x3ff));
      } else {
        escape(code);
      }
    } else {
      out.append(text.substr(at, length));
    }
    at += length;
  }
  out += '"';
}

/// As Python's repr: shortest digits, always a point or an exponent, exponent form outside [1e-4, 1e16).
void write_double(std::string& out, double value) {
  if (std::isnan(value)) throw Error(ErrorKind::internal, "NaN cannot be written as JSON");
  if (std::isinf(value)) throw Error(ErrorKind::internal, "an infinity cannot be written as JSON");
  char buffer[64];
  const double size = std::abs(value);
  const auto format =
      value != 0 && (size < 1e-4 || size >= 1e16) ? std::chars_format::scientific : std::chars_format::fixed;
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, format).ptr;
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

struct Dumper {
  std::string out;
  int indent;
  bool ascii;

  void line(int level) {
    if (indent == 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(indent * level), ' ');
  }

  template <class Items, class Write>
  void list(const Items& items, char open, char close, int level, Write write) {
    out += open;
    bool first = true;
    for (const auto& item : items) {
      if (!first) out += indent == 0 ? ", " : ",";
      first = false;
      line(level + 1);
      write(item);
    }
    if (!first) line(level);
    out += close;
  }

  void write(const Json& json, int level) {
    if (json.is_null()) {
      out += "null";
    } else if (json.is_bool()) {
      out += json.boolean("") ? "true" : "false";
    } else if (json.is_integer()) {
      out += std::to_string(json.integer(""));
    } else if (json.is_number()) {
      write_double(out, json.number(""));
    } else if (json.is_string()) {
      write_string(out, json.string(""), ascii);
    } else if (json.is_array()) {
      list(json.array(""), '[', ']', level, [&](const Json& item) { write(item, level + 1); });
    } else {
      list(json.object(""), '{', '}', level, [&](const Json::Member& member) {
        write_string(out, member.first, ascii);
        out += ": ";
        write(member.second, level + 1);
      });
    }
  }
};

/// The text with ".0" behind every whole number of more than 64 bits, which simdjson 3.0 refuses; tokenizer_config.json
/// often holds one ("model_max_length": 1000000000000000019884624838656).
std::string with_large_integers_as_doubles(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 64);
  bool in_string = false;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    std::size_t end = at + 1;
    if (in_string && c == '\\') {
      end = std::min(at + 2, text.size());
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string && (c == '-' || (c >= '0' && c <= '9'))) {
      end = std::min(text.find_first_not_of("0123456789", end), text.size());
      const bool whole = end == text.size() || (text[end] != '.' && text[end] != 'e' && text[end] != 'E');
      out.append(text.substr(at, end - at));
      std::int64_t value = 0;
      if (whole && std::from_chars(text.data() + at, text.data() + end, value).ec == std::errc::result_out_of_range) {
        out += ".0";
      }
      while (end < text.size() && std::string_view("0123456789.eE+-").find(text[end]) != std::string_view::npos) {
        out += text[end++];
      }
      at = end;
      continue;
    }
    out.append(text.substr(at, end - at));
    at = end;
  }
  return out;
}

std::string_view kind_of(const Json& json) {
  if (json.is_null()) return "null";
  if (json.is_bool()) return "boolean";
  if (json.is_number()) return "number";
  if (json.is_string()) return "string";
  return json.is_array() ? "list" : "object";
}

[[noreturn]] void wrong_type(std::string_view where, std::string_view expected, const Json& found) {
  throw bad_input(where, ": expected ", expected, ", found ", kind_of(found));
}

}  // namespace

Json Json::parse(std::string_view text, std::string_view where) {
  simdjson::dom::parser parser;
  const auto error = parser.allocate(text.size(), kMaxDepth);
  if (error != simdjson::SUCCESS) throw bad_input(where, ": ", simdjson::error_message(error));
  auto result = parser.parse(text.data(), text.size());
  if (result.error() == simdjson::NUMBER_ERROR) {
    const std::string rewritten = with_large_integers_as_doubles(text);
    result = parser.parse(rewritten.data(), rewritten.size());
  }
  if (result.error() != simdjson::SUCCESS) {
    throw bad_input(where, ": not valid JSON: ", simdjson::error_message(result.error()));
  }
  return convert(result.value_unsafe(), where);
}

Json Json::read(const std::filesystem::path& file, std::int64_t max_bytes) {
  return parse(read_file(file, max_bytes), file.string());
}

bool Json::boolean(std::string_view where) const {
  if (!is_bool()) wrong_type(where, "true or false", *this);
  return std::get<bool>(value_);
}

std::int64_t Json::integer(std::string_view where) const {
  if (const auto* value = std::get_if<std::int64_t>(&value_)) return *value;
  if (const auto* value = std::get_if<double>(&value_)) {
    if (std::abs(*value) < 0x1p62 && *value == std::floor(*value)) return static_cast<std::int64_t>(*value);
    throw bad_input(where, ": expected a whole number, found ", *value);
  }
  wrong_type(where, "a whole number", *this);
}

double Json::number(std::string_view where) const {
  if (const auto* value = std::get_if<std::int64_t>(&value_)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<double>(&value_)) return *value;
  wrong_type(where, "a number", *this);
}

const std::string& Json::string(std::string_view where) const {
  if (!is_string()) wrong_type(where, "a string", *this);
  return std::get<std::string>(value_);
}

const Json::Array& Json::array(std::string_view where) const {
  if (!is_array()) wrong_type(where, "a list", *this);
  return std::get<Array>(value_);
}

const Json::Object& Json::object(std::string_view where) const {
  if (!is_object()) wrong_type(where, "an object", *this);
  return std::get<Object>(value_);
}

Json::Array& Json::array(std::string_view where) {
  if (!is_array()) wrong_type(where, "a list", *this);
  return std::get<Array>(value_);
}

Json::Object& Json::object(std::string_view where) {
  if (!is_object()) wrong_type(where, "an object", *this);
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  const auto* members = std::get_if<Object>(&value_);
  if (members == nullptr) return nullptr;
  for (const Member& member : *members) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

const Json* Json::get(std::string_view key) const {
  const Json* found = find(key);
  return found != nullptr && !found->is_null() ? found : nullptr;
}

void Json::set(std::string_view key, Json value) {
  if (is_null()) value_ = Object();
  Object& members = object("Json::set");
  for (Member& member : members) {
    if (member.first == key) {
      member.second = std::move(value);
      return;
    }
  }
  members.emplace_back(std::string(key), std::move(value));
}

bool Json::erase(std::string_view key) {
  auto* members = std::get_if<Object>(&value_);
  if (members == nullptr) return false;
  return std::erase_if(*members, [&](const Member& member) { return member.first == key; }) > 0;
}

std::string Json::dump(int indent, bool ascii) const {
  Dumper dumper{{}, indent, ascii};
  dumper.write(*this, 0);
  return std::move(dumper.out);
}

}  // namespace nibble
