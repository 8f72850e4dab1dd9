#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shard_index.h"
#include "checkpoint/torch_file.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

bool present(const fs::path& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found && !error;
}

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

/// "model-00002-of-00003.safetensors": one part of a model, never a model by itself.
bool is_shard_name(std::string_view name) {
  const std::size_t of = name.rfind("-of-");
  return of != std::string_view::npos && name.substr(of + 4, 6) != "00001.";
}

/// Files of `folder` whose name ends with `end`, in name order.
std::vector<fs::path> files_ending(const fs::path& folder, std::string_view end) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error) throw bad_input(folder.string(), ": cannot list: ", error.message());
  for (const fs::directory_entry& entry : entries) {
    if (ends_with(entry.path().filename().string(), end)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_gptq_name(const fs::path& file) { return file.filename().string().rfind("gptq_model-", 0) == 0; }

/// Files of `folder` ending with `end`: only AutoGPTQ's gptq_model-* where there are such.
std::vector<fs::path> weights_ending(const fs::path& folder, std::string_view end) {
  std::vector<fs::path> found = files_ending(folder, end);
  if (std::any_of(found.begin(), found.end(), is_gptq_name)) {
    found.erase(std::remove_if(found.begin(), found.end(), std::not_fn(is_gptq_name)), found.end());
  }
  return found;
}

/// The file that stands for a model folder's weights, in the order Transformers looks; then a single safetensors file
/// under another name (adapters, vision and audio models).
fs::path weights_of(const fs::path& folder) {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (present(folder / name)) return folder / name;
  }
  for (const char* end : {".safetensors.index.json", ".safetensors"}) {
    const std::vector<fs::path> found = weights_ending(folder, end);
    if (found.size() == 1 && !is_shard_name(found[0].filename().string())) return found[0];
    if (found.size() > 1 && !is_shard_name(found[0].filename().string())) {
      throw bad_input(folder.string(), ": no model.safetensors, and more than one *", end, " (",
                      found[0].filename().string(), ", ", found[1].filename().string(), ", ...): name one of them");
    }
    if (!found.empty()) {
      throw bad_input(folder.string(), ": shards like ", found[0].filename().string(),
                      " but no model.safetensors.index.json (an unfinished download or save?)");
    }
  }
  for (const char* end : {".bin.index.json", ".bin", ".pt"}) {
    const std::vector<fs::path> found = weights_ending(folder, end);
    if (found.size() == 1 && is_gptq_name(found[0])) return found[0];
  }
  throw bad_input(folder.string(), ": no weights here (looked for model.safetensors, model.safetensors.index.json, ",
                  "pytorch_model.bin, pytorch_model.bin.index.json, *.safetensors)");
}

/// A file of another kind would only give a puzzling complaint about its safetensors header.
void refuse_other_kinds(const MappedFile& file) {
  if (file.bytes().size() < 8) return;
  const std::string_view head(reinterpret_cast<const char*>(file.bytes().data()),
                              std::min<std::size_t>(file.bytes().size(), 64));
  // Four zero bytes here are the upper half of a safetensors header's length.
  if (head.substr(4, 4) == std::string_view("\0\0\0\0", 4)) return;
  const auto begins = [&](std::string_view magic) { return head.substr(0, magic.size()) == magic; };
  const std::string where = file.path().string();
  if (begins("version https://git-lfs")) {
    throw bad_input(where, ": a git-lfs pointer, not the file itself; fetch it with \"git lfs pull\"");
  }
  if (begins("<!") || begins("<html") || begins("<?xml") || begins("<HTML")) {
    throw bad_input(where, ": a web page, not weights (a failed download?)");
  }
  if (begins("GGUF")) throw bad_input(where, ": a GGUF file; only safetensors and PyTorch files are read");
  if (begins("\x80\x02") || begins("\x80\x03") || begins("\x80\x04") || begins("\x80\x05")) {
    throw bad_input(where, ": a plain pickle, not a file written by torch.save");
  }
}

}  // namespace

/// Builds a Checkpoint file by file.
class CheckpointReader {
 public:
  std::shared_ptr<const Checkpoint> read(const fs::path& path) {
    std::error_code error;
    const bool folder = fs::is_directory(path, error);
    result_->folder_ = folder ? path : path.parent_path().empty() ? fs::path(".") : path.parent_path();
    if (const fs::path config = result_->folder_ / "config.json"; present(config)) {
      result_->config_ = Json::read(config);
      if (!result_->config_.is_object()) throw bad_input(config.string(), ": not a JSON object");
    }
    read_weights(folder ? weights_of(path) : path);
    result_->owner_ = std::make_shared<std::vector<std::shared_ptr<const void>>>(std::move(owners_));
    return result_;
  }

 private:
  void read_weights(const fs::path& file) {
    if (!ends_with(file.filename().string(), ".index.json")) {
      read_file(file);
      sort();
      return;
    }
    const ShardIndex index = read_shard_index(file);
    for (const std::string& shard : index.shards) read_file(file.parent_path() / shard);
    sort();
    check_against_index(index, *result_);
  }

  void read_file(const fs::path& path) {
    const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
    owners_.push_back(file);
    result_->mappings_.push_back(file->bytes());
    if (is_torch_file(*file)) {
      TorchContent content = read_torch_file(file);
      owners_.insert(owners_.end(), content.keep.begin(), content.keep.end());
      append(std::move(content.tensors));
      return;
    }
    refuse_other_kinds(*file);
    SafetensorsContent content = read_safetensors(*file);
    if (result_->metadata_.is_null()) result_->metadata_ = std::move(content.metadata);
    append(std::move(content.tensors));
  }

  void append(std::vector<TensorEntry> tensors) {
    auto& all = result_->tensors_;
    all.insert(all.end(), std::make_move_iterator(tensors.begin()), std::make_move_iterator(tensors.end()));
  }

  /// Orders by name; a name in two shards is an error.
  void sort() {
    auto& all = result_->tensors_;
    const auto by_name = [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; };
    std::sort(all.begin(), all.end(), by_name);
    const auto twice =
        std::adjacent_find(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
    if (twice != all.end()) {
      throw bad_input(twice->file.string(), ": tensor \"", printable(twice->name), "\" is also in ",
                      std::next(twice)->file.filename().string());
    }
  }

  std::shared_ptr<Checkpoint> result_ = std::make_shared<Checkpoint>();
  std::vector<std::shared_ptr<const void>> owners_;
};

void Checkpoint::release(const View& tensor) const {
  if (release_) return release_(tensor);
  const std::span<const std::byte> bytes = tensor.bytes();
  const std::less_equal<const std::byte*> before;
  for (const std::span<const std::byte> file : mappings_) {
    if (before(file.data(), bytes.data()) && before(bytes.data() + bytes.size(), file.data() + file.size())) {
      release_pages(bytes);
    }
  }
}

std::shared_ptr<const Checkpoint> Checkpoint::open(const std::string& model) {
  return CheckpointReader().read(resolve_model(model));
}

std::shared_ptr<const Checkpoint> Checkpoint::in_memory(CheckpointParts parts) {
  const auto result = std::make_shared<Checkpoint>();
  result->folder_ = std::move(parts.folder);
  result->tensors_ = std::move(parts.tensors);
  result->config_ = std::move(parts.config);
  result->metadata_ = std::move(parts.metadata);
  result->files_ = std::move(parts.files);
  result->owner_ = std::move(parts.owner);
  result->release_ = std::move(parts.release);
  const auto by_name = [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; };
  std::sort(result->tensors_.begin(), result->tensors_.end(), by_name);
  const auto same = [](const TensorEntry& a, const TensorEntry& b) { return a.name == b.name; };
  const auto twice = std::adjacent_find(result->tensors_.begin(), result->tensors_.end(), same);
  check(twice == result->tensors_.end(), "Checkpoint::in_memory: a tensor name appears twice");
  return result;
}

std::optional<Json> Checkpoint::json_file(const std::string& name, std::int64_t max_bytes) const {
  const fs::path path = folder_ / name;
  if (const auto found = files_.find(name); found != files_.end()) return Json::parse(found->second, path.string());
  std::error_code failed;
  if (!fs::is_regular_file(path, failed)) return std::nullopt;
  return Json::read(path, max_bytes);
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const TensorEntry& entry, std::string_view key) { return entry.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const View& Checkpoint::at(std::string_view name) const {
  const TensorEntry* found = find(name);
  if (found == nullptr) throw bad_input(folder_.string(), ": tensor ", printable(name), " is missing");
  return found->view;
}

}  // namespace nibble
