#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string_view>
#include <tuple>

#include "base/error.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little, "file formats are little-endian and are mapped as they are");

/// How a dtype of the format is shown: as a type of nibble, or (F4, F8_E8M0, ...) as raw bytes.
struct StoredType {
  std::string_view name;
  DType shown;
  int bits;  ///< of one element
};

/// Types without arithmetic here; a reader of such a scheme knows what the bytes mean.
constexpr std::array<StoredType, 6> kRawTypes{{{"F4", DType::u8, 4},
                                               {"F6_E2M3", DType::u8, 6},
                                               {"F6_E3M2", DType::u8, 6},
                                               {"F8_E8M0", DType::u8, 8},
                                               {"F8_E5M2FNUZ", DType::u8, 8},
                                               {"C64", DType::u8, 64}}};

std::optional<StoredType> stored_type(std::string_view name) {
  if (const auto dtype = dtype_from_safetensors(name))
    return StoredType{name, *dtype, static_cast<int>(size_of(*dtype)) * 8};
  for (const StoredType& raw : kRawTypes) {
    if (raw.name == name) return raw;
  }
  return std::nullopt;
}

/// One tensor's fields on the way to a TensorEntry.
class EntryReader {
 public:
  EntryReader(const MappedFile& file, std::span<const std::byte> data) : file_(file), data_(data) {}

  TensorEntry read(const std::string& name, const Json& fields) {
    name_ = &name;
    if (!fields.is_object()) fail("not an object");
    const Json& dtype_field = field(fields, "dtype");
    if (!dtype_field.is_string()) fail("dtype is not a string");
    const std::string& dtype_name = dtype_field.string("");
    const auto type = stored_type(dtype_name);
    if (!type) fail("unknown dtype \"", printable(dtype_name, 40), "\"");
    const Shape shape = integers(field(fields, "shape"), "shape");
    const Shape range = integers(field(fields, "data_offsets"), "data_offsets");
    if (range.size() != 2 || range[1] < range[0]) fail("data_offsets are not [begin, end]");
    if (range[1] > static_cast<std::int64_t>(data_.size())) {
      fail("its data ends at byte ", range[1], " but the file holds only ", data_.size(),
           " bytes of data (truncated?)");
    }
    return entry(*type, shape, range[0], range[1]);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(const Args&... reason) const {
    throw bad_input(file_.path().string(), ": tensor \"", printable(*name_), "\": ", reason...);
  }

  const Json& field(const Json& fields, std::string_view key) const {
    const Json* found = fields.find(key);
    if (found == nullptr) fail(key, " is missing");
    return *found;
  }

  Shape integers(const Json& list, std::string_view what) const {
    if (!list.is_array()) fail(what, " is not a list");
    Shape out;
    for (const Json& item : list.array("")) {
      if (!item.is_integer() || item.integer("") < 0) fail(what, " holds something else than whole numbers >= 0");
      out.push_back(item.integer(""));
    }
    return out;
  }

  std::int64_t element_count(const Shape& shape) const {
    try {
      return count_of(shape, 8);
    } catch (const Error&) {
      fail("shape ", printable(to_string(shape)), " has too many elements");
    }
  }

  TensorEntry entry(const StoredType& type, const Shape& shape, std::int64_t begin, std::int64_t end) const {
    const std::int64_t count = element_count(shape);
    const std::int64_t bits = count * type.bits;  // count <= 2^59, see element_count
    if (count > (std::int64_t{1} << 56) || bits % 8 != 0 || bits / 8 != end - begin) {
      fail("shape ", printable(to_string(shape)), " of ", type.name, " does not take the ", end - begin,
           " bytes between its data_offsets");
    }
    const std::byte* data = data_.data() + begin;
    if (type.shown == DType::boolean) check_bools({data, static_cast<std::size_t>(end - begin)});
    const bool raw = !dtype_from_safetensors(type.name);
    return {*name_, View(data, raw ? raw_shape(shape, type, end - begin) : shape, type.shown), file_.path(),
            raw ? std::string(type.name) : std::string()};
  }

  /// The last dimension counted in bytes when rows are whole bytes, else one flat row.
  static Shape raw_shape(Shape shape, const StoredType& type, std::int64_t bytes) {
    if (shape.empty() || shape.back() * type.bits % 8 != 0) return {bytes};
    shape.back() = shape.back() * type.bits / 8;
    return shape;
  }

  void check_bools(std::span<const std::byte> bytes) const {
    const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; });
    if (bad != bytes.end()) {
      fail("BOOL byte ", std::to_integer<int>(*bad), " at index ", bad - bytes.begin(), " is neither 0 nor 1");
    }
  }

  const MappedFile& file_;
  std::span<const std::byte> data_;
  const std::string* name_ = nullptr;
};

/// The header's text; throws when the file cannot be a safetensors file.
std::string_view header_text(const MappedFile& file) {
  const auto bytes = file.bytes();
  const std::string where = file.path().string();
  if (bytes.size() < 8) throw bad_input(where, ": only ", bytes.size(), " bytes, too short for a safetensors file");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > static_cast<std::uint64_t>(kMaxSafetensorsHeader)) {
    throw bad_input(where, ": header of ", length, " bytes; at most ", kMaxSafetensorsHeader,
                    " are allowed (not a safetensors file?)");
  }
  if (length > bytes.size() - 8) {
    throw bad_input(where, ": header of ", length, " bytes in a file of ", bytes.size(), " bytes (truncated?)");
  }
  return {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<std::size_t>(length)};
}

void check_metadata(const Json& metadata, const std::string& where) {
  if (!metadata.is_object()) throw bad_input(where, ": __metadata__ is not an object");
  for (const auto& [key, value] : metadata.object("")) {
    if (!value.is_string()) throw bad_input(where, ": __metadata__: \"", printable(key), "\" is not a string");
  }
}

/// The tensors must follow each other from the first byte to the last.
void check_tiling(const std::vector<TensorEntry>& tensors, std::span<const std::byte> data, const std::string& where) {
  std::vector<std::size_t> order(tensors.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto range = [&](std::size_t i) {
    const auto begin = tensors[i].view.data() - data.data();
    return std::pair(begin, begin + static_cast<std::ptrdiff_t>(tensors[i].view.size_bytes()));
  };
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return range(a) < range(b); });
  std::ptrdiff_t at = 0;
  for (const std::size_t i : order) {
    const auto [begin, end] = range(i);
    if (begin != at) {
      throw bad_input(where, ": tensor \"", printable(tensors[i].name), "\": begins at byte ", begin,
                      begin < at ? ", inside the tensor before it, which ends at " : ", leaving a hole behind byte ",
                      at);
    }
    at = end;
  }
  if (at != static_cast<std::ptrdiff_t>(data.size())) {
    throw bad_input(where, ": ", static_cast<std::ptrdiff_t>(data.size()) - at, " bytes behind the last tensor");
  }
}

/// Position in the reference implementation's enumeration of dtypes, which its writer sorts by, descending.
int rank_of(DType dtype) {
  static constexpr std::array<DType, 16> ascending{DType::boolean,   DType::u8,          DType::i8,  DType::f8_e5m2,
                                                   DType::f8_e4m3fn, DType::f8_e4m3fnuz, DType::i16, DType::u16,
                                                   DType::f16,       DType::bf16,        DType::i32, DType::u32,
                                                   DType::f32,       DType::f64,         DType::i64, DType::u64};
  return static_cast<int>(std::find(ascending.begin(), ascending.end(), dtype) - ascending.begin());
}

/// A JSON string as Rust's serde_json writes it.
void append_quoted(std::string& out, std::string_view text) {
  static constexpr char hex[] = "0123456789abcdef";
  static constexpr std::string_view special = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
  out += '"';
  for (const char c : text) {
    const std::size_t found = special.find(c);
    if (found != std::string_view::npos) {
      out += {'\\', letters[found]};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    } else {
      out += c;
    }
  }
  out += '"';
}

void append_metadata(std::string& out, const Json& metadata) {
  out += "\"__metadata__\":{";
  bool first = true;
  for (const auto& [key, value] : metadata.object("metadata")) {
    if (!first) out += ',';
    first = false;
    append_quoted(out, key);
    out += ':';
    append_quoted(out, value.string("metadata: " + key));
  }
  out += '}';
}

void append_tensor(std::string& out, const TensorPlan& tensor, std::int64_t begin, std::int64_t end) {
  append_quoted(out, tensor.name);
  out += ":{\"dtype\":\"";
  out += safetensors_name(tensor.dtype);
  out += "\",\"shape\":[";
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(tensor.shape[i]);
  }
  out += "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(end) + "]}";
}

}  // namespace

SafetensorsContent read_safetensors(const MappedFile& file) {
  const std::string where = file.path().string();
  const std::string_view text = header_text(file);
  const Json header = Json::parse(text, where + ": header");
  if (!header.is_object()) throw bad_input(where, ": header is not a JSON object");
  const auto data = file.bytes().subspan(8 + text.size());
  SafetensorsContent content;
  content.tensors.reserve(header.object("").size());
  EntryReader reader(file, data);
  for (const auto& [name, fields] : header.object("")) {
    if (name == "__metadata__") {
      check_metadata(fields, where);
      content.metadata = fields;
    } else {
      content.tensors.push_back(reader.read(name, fields));
    }
  }
  check_tiling(content.tensors, data, where);
  return content;
}

SafetensorsHeader make_safetensors_header(std::span<const TensorPlan> plan, const Json& metadata) {
  std::vector<std::size_t> order(plan.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::tuple(-rank_of(plan[a].dtype), std::string_view(plan[a].name)) <
           std::tuple(-rank_of(plan[b].dtype), std::string_view(plan[b].name));
  });
  SafetensorsHeader header;
  header.offsets.resize(plan.size());
  std::string json = "{";
  if (metadata.is_object() && !metadata.object("").empty()) append_metadata(json, metadata);
  for (const std::size_t i : order) {
    const TensorPlan& tensor = plan[i];
    const auto size = size_of(tensor.dtype);
    const std::int64_t end = header.data_bytes + count_of(tensor.shape, size) * static_cast<std::int64_t>(size);
    if (json.size() > 1) json += ',';
    append_tensor(json, tensor, header.data_bytes, end);
    header.offsets[i] = header.data_bytes;
    header.data_bytes = end;
  }
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  if (json.size() > static_cast<std::size_t>(kMaxSafetensorsHeader)) {
    throw bad_input("a safetensors header of ", json.size(), " bytes would be needed; at most ", kMaxSafetensorsHeader,
                    " are allowed: use smaller shards");
  }
  const std::uint64_t length = json.size();
  header.bytes.resize(8);
  std::memcpy(header.bytes.data(), &length, 8);
  header.bytes += json;
  return header;
}

}  // namespace nibble
