#include "run/adapter/adapter.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <system_error>

#include "base/error.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::int64_t kChunk = 2048;  // values converted at once
constexpr std::int64_t kMaxConfig = std::int64_t{16} << 20;

bool take_end(std::string_view& text, std::string_view end) {
  if (text.size() <= end.size() || text.substr(text.size() - end.size()) != end) return false;
  text.remove_suffix(end.size());
  return true;
}

/// `name` without the part `.what`, wherever it stands.
std::string without(std::string name, std::string_view what) {
  const std::string part = "." + std::string(what);
  for (std::size_t at = name.find(part); at != std::string::npos; at = name.find(part, at)) {
    const std::size_t end = at + part.size();
    if (end == name.size() || name[end] == '.') {
      name.erase(at, part.size());
    } else {
      at = end;
    }
  }
  return name;
}

/// What a tensor of the file is to its module.
enum class Part : std::uint8_t { a, b, embedding_a, embedding_b, magnitude, bias };
struct NamedPart {
  std::string_view end;
  Part part;
};
constexpr NamedPart kParts[] = {
    {".lora_A.weight", Part::a},
    {".lora_B.weight", Part::b},
    {".lora_B.bias", Part::bias},
    {".lora_embedding_A", Part::embedding_a},
    {".lora_embedding_B", Part::embedding_b},
    {".lora_magnitude_vector", Part::magnitude},
    {".lora_magnitude_vector.weight", Part::magnitude},  // PEFT 0.9 and 0.10
};

}  // namespace

/// Sorts the tensors of one file by what they are, then checks each module.
class AdapterReader {
 public:
  AdapterReader(AdapterConfig config, std::string config_file, std::shared_ptr<const Checkpoint> tensors)
      : config_(std::move(config)), config_file_(std::move(config_file)), tensors_(std::move(tensors)) {}

  std::shared_ptr<const Adapter> read() {
    const auto out = std::make_shared<Adapter>();
    const std::span<const TensorEntry> entries = tensors_->tensors();
    if (entries.empty()) throw bad_input(tensors_->folder().string(), ": the adapter has no tensors");
    out->file_ = entries.front().file.string();
    for (const TensorEntry& entry : entries) {
      check_values(entry);
      sort(entry, *out);
      out->bytes_ += static_cast<std::int64_t>(entry.view.size_bytes());
    }
    for (const auto& [name, parts] : parts_) out->modules_.push_back(module(name, parts));
    out->config_ = std::move(config_);
    out->tensors_ = std::move(tensors_);
    return out;
  }

 private:
  using Parts = std::map<Part, const TensorEntry*>;

  template <class... Args>
  static Error bad(const TensorEntry& entry, const Args&... args) {
    return bad_input(entry.file.string(), ": tensor ", printable(entry.name), ": ", args...);
  }

  static void check_values(const TensorEntry& entry) {
    const DType dtype = entry.view.dtype();
    if ((dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) || !entry.raw_dtype.empty()) {
      throw bad(entry, "expected f32, f16 or bf16, found ",
                entry.raw_dtype.empty() ? std::string(name_of(dtype)) : printable(entry.raw_dtype));
    }
    if (entry.view.empty()) throw bad(entry, "has no elements (rank 0?)");
    std::array<float, kChunk> values;
    for (std::int64_t at = 0; at < entry.view.count(); at += kChunk) {
      const std::int64_t count = std::min(kChunk, entry.view.count() - at);
      convert_to_f32(dtype, entry.view.data() + static_cast<std::size_t>(at) * size_of(dtype), values.data(), count);
      const auto end = values.begin() + count;
      const auto found = std::find_if(values.begin(), end, [](float value) { return !std::isfinite(value); });
      if (found != end) throw bad(entry, "element ", at + (found - values.begin()), " is not finite");
    }
  }

  void sort(const TensorEntry& entry, Adapter& out) {
    std::string_view rest = entry.name;
    if (rest.substr(0, kPrefix.size()) != kPrefix) throw bad(entry, "no name that PEFT gives (", kPrefix, "...)");
    rest.remove_prefix(kPrefix.size());
    // Saved without PEFT's own save_pretrained, names still hold that of the adapter.
    const std::string plain = without(without(std::string(rest), "default"), "modules_to_save");
    for (const NamedPart& named : kParts) {
      std::string_view module = plain;
      if (!take_end(module, named.end)) continue;
      const auto [at, fresh] = parts_[std::string(module)].emplace(named.part, &entry);
      if (!fresh) throw bad(entry, "is there twice (", printable(at->second->name), ")");
      return;
    }
    if (plain.find("lora_") != std::string::npos) throw bad(entry, "of a kind of LoRA that is not supported");
    replace(entry, plain, out);
  }

  /// A tensor without lora_ in its name replaces the base's.
  void replace(const TensorEntry& entry, const std::string& plain, Adapter& out) const {
    Replacement made;
    made.name = without(plain, "base_layer");
    made.tensor = entry.name;
    made.view = entry.view;
    std::string_view module = made.name;
    const bool is_bias = take_end(module, ".bias");
    if (!is_bias && !take_end(module, ".weight")) throw bad(entry, "neither LoRA nor a weight or bias");
    made.own_copy = config_.saves(module);
    if (is_bias && config_.bias == "none" && !made.own_copy) {
      throw bad(entry, "is a bias, but ", config_file_, ": field bias is \"none\"");
    }
    out.replacements_.push_back(std::move(made));
  }

  LoraModule module(const std::string& name, const Parts& parts) const {
    const auto find = [&](Part part) {
      const auto found = parts.find(part);
      return found == parts.end() ? nullptr : found->second;
    };
    const TensorEntry& first = *parts.begin()->second;
    const bool embedding = find(Part::embedding_a) != nullptr || find(Part::embedding_b) != nullptr;
    if (embedding && (find(Part::a) != nullptr || find(Part::b) != nullptr)) {
      throw bad(first, "the module has both lora_A/B and lora_embedding_A/B");
    }
    const TensorEntry* a = find(embedding ? Part::embedding_a : Part::a);
    const TensorEntry* b = find(embedding ? Part::embedding_b : Part::b);
    if (a == nullptr || b == nullptr) throw bad(first, "its partner lora_", a == nullptr ? "A" : "B", " is missing");
    if (!config_.targets(name)) {
      throw bad(*a, "contradicts ", config_file_, ": field target_modules, which does not name ", printable(name));
    }
    LoraModule made;
    made.name = name;
    made.first_tensor = a->name;
    made.embedding = embedding;
    made.scaling = config_.scaling_of(name);
    made.a = matrix(*a);
    made.b = matrix(*b);
    check_rank(*a, made.a.dim(0), name);
    check_rank(*b, made.b.dim(1), name);
    made.magnitude = vector(find(Part::magnitude), *a, made.outputs(), config_.use_dora, "use_dora");
    made.bias = vector(find(Part::bias), *a, made.outputs(), config_.lora_bias && !embedding, "lora_bias");
    if (embedding && made.magnitude) throw bad(*a, "DoRA of an embedding is not supported");
    return made;
  }

  static View matrix(const TensorEntry& entry) {
    if (entry.view.rank() == 2) return entry.view;
    throw bad(entry, "expected a matrix, found ", to_string(entry.view.shape()),
              entry.view.rank() == 4 ? " (LoRA of convolutions is not supported)" : "");
  }

  void check_rank(const TensorEntry& entry, std::int64_t rank, const std::string& module) const {
    const std::int64_t expected = config_.rank_of(module);
    if (rank == expected) return;
    throw bad(entry, "has rank ", rank, " (", to_string(entry.view.shape()), "), but ", config_file_,
              ": r and rank_pattern say ", expected);
  }

  /// An optional tensor [size] that has to be there exactly when the config's `field` says so.
  std::optional<View> vector(const TensorEntry* entry, const TensorEntry& a, std::int64_t size, bool expected,
                             std::string_view field) const {
    if (entry == nullptr) {
      if (!expected) return std::nullopt;
      throw bad(a, "the tensor that ", config_file_, ": field ", field, " promises is missing");
    }
    if (!expected) throw bad(*entry, "contradicts ", config_file_, ": field ", field, " is false");
    if (entry->view.shape() == Shape{size}) return entry->view;
    throw bad(*entry, "expected ", size, " values, found ", to_string(entry->view.shape()));
  }

  AdapterConfig config_;
  std::string config_file_;
  std::shared_ptr<const Checkpoint> tensors_;
  std::map<std::string, Parts> parts_;
};

std::shared_ptr<const Adapter> Adapter::make(const Json& config, const std::string& config_file,
                                             std::shared_ptr<const Checkpoint> tensors) {
  return AdapterReader(parse_adapter_config(config, config_file), config_file, std::move(tensors)).read();
}

std::shared_ptr<const Adapter> Adapter::open(const std::string& name) {
  fs::path folder = resolve_model(name);
  std::error_code failed;
  if (!fs::is_directory(folder, failed)) folder = folder.has_parent_path() ? folder.parent_path() : fs::path(".");
  const fs::path config = folder / "adapter_config.json";
  if (!fs::exists(config, failed)) throw bad_input(config.string(), ": is missing: this folder holds no PEFT adapter");
  const Json json = Json::read(config, kMaxConfig);
  for (const char* file : {"adapter_model.safetensors", "adapter_model.bin"}) {
    if (!fs::exists(folder / file, failed)) continue;
    return make(json, config.string(), Checkpoint::open((folder / file).string()));
  }
  throw bad_input(folder.string(), ": neither adapter_model.safetensors nor adapter_model.bin (an unfinished save?)");
}

AdapterName parse_adapter_name(const std::string& text) {
  AdapterName out{text, 1};
  const std::size_t equals = text.rfind('=');
  std::error_code failed;
  if (equals == std::string::npos || fs::exists(text, failed)) return out;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + equals + 1, end, out.scale);
  if (error != std::errc() || stop != end || !std::isfinite(out.scale)) {
    throw bad_input("--lora ", printable(text), ": what follows = is no finite number");
  }
  out.path = text.substr(0, equals);
  return out;
}

}  // namespace nibble
