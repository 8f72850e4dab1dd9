#include "checkpoint/torch_tensors.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"

namespace nibble {
namespace {

constexpr int kMaxNesting = 64;
constexpr std::size_t kMaxVisits = std::size_t{1} << 24;
constexpr std::size_t kMaxName = 4096;

bool is_contiguous(const TorchTensor& tensor) {
  std::int64_t expected = 1;
  for (std::size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

/// Copies the elements of dimensions [dim, rank) from strided to dense; returns the end of what was written.
std::byte* gather(const TorchTensor& tensor, std::size_t dim, const std::byte* from, std::byte* to) {
  const auto size = static_cast<std::int64_t>(size_of(tensor.dtype));
  if (dim == tensor.shape.size()) {
    std::memcpy(to, from, static_cast<std::size_t>(size));
    return to + size;
  }
  for (std::int64_t i = 0; i < tensor.shape[dim]; ++i) {
    to = gather(tensor, dim + 1, from + i * tensor.strides[dim] * size, to);
  }
  return to;
}

class Collector {
 public:
  Collector(const Pickle& pickle, const StorageBytes& storage_bytes, const TorchFileLimits& limits,
            std::vector<TensorEntry>& out, std::vector<std::shared_ptr<const void>>& keep)
      : pickle_(pickle), storage_bytes_(storage_bytes), limits_(limits), out_(out), keep_(keep) {}

  void collect() {
    PickleValue root = pickle_.root;
    if (root.kind == PickleKind::dict && !has_tensor(root)) {
      for (const char* name : {"state_dict", "model_state_dict", "model"}) {
        const PickleValue* part = member(root, name);
        if (part == nullptr || part->kind != PickleKind::dict) continue;
        root = *part;
        break;
      }
    }
    walk(root, "", 0);
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw bad_input(limits_.file.string(), ": ", args...);
  }

  bool has_tensor(const PickleValue& dict) const {
    const auto items = pickle_.items(dict);
    return std::any_of(items.begin(), items.end(), [](const auto& item) { return item.kind == PickleKind::tensor; });
  }

  const PickleValue* member(const PickleValue& dict, std::string_view name) const {
    const auto items = pickle_.items(dict);
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      if (items[i].kind == PickleKind::text && pickle_.text(items[i]) == name) return &items[i + 1];
    }
    return nullptr;
  }

  std::string key_text(const PickleValue& key) const {
    if (key.kind == PickleKind::integer) return std::to_string(key.integer);
    return key.kind == PickleKind::text ? std::string(pickle_.text(key)) : std::string();
  }

  void walk(const PickleValue& value, const std::string& name, int depth) {
    if (++visits_ > kMaxVisits || depth > kMaxNesting || name.size() > kMaxName) fail("pickle: nested too deeply");
    const std::string prefix = name.empty() ? "" : name + ".";
    switch (value.kind) {
      case PickleKind::tensor: add(pickle_.tensors[value.node], name); break;
      case PickleKind::dict:
      case PickleKind::record: {
        const auto items = pickle_.items(value);
        for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
          if (is_leaf(items[i + 1])) continue;
          walk(items[i + 1], prefix + key_text(items[i]), depth + 1);
        }
        break;
      }
      case PickleKind::list:
      case PickleKind::tuple: {
        const auto items = pickle_.items(value);
        for (std::size_t i = 0; i < items.size(); ++i) {
          if (!is_leaf(items[i])) walk(items[i], prefix + std::to_string(i), depth + 1);
        }
        break;
      }
      default: break;
    }
  }

  static bool is_leaf(const PickleValue& value) {
    return value.kind != PickleKind::tensor && value.kind != PickleKind::dict && value.kind != PickleKind::record &&
           value.kind != PickleKind::list && value.kind != PickleKind::tuple;
  }

  void add(const TorchTensor& tensor, const std::string& name) {
    if (!utf8_valid(name)) fail("tensor ", printable(name), ": the name is not valid UTF-8");
    const TorchStorage& storage = pickle_.storages[tensor.storage];
    const std::span<const std::byte> bytes = storage_bytes_(storage);
    // The pickle checked the tensor against storage.bytes; the storage's real bytes are at least as many.
    check(static_cast<std::int64_t>(bytes.size()) >= storage.bytes, "torch storage: bytes");
    const auto size = static_cast<std::int64_t>(size_of(tensor.dtype));
    const std::byte* begin = bytes.data() + tensor.offset * size;
    View view(begin, tensor.shape, tensor.dtype);
    if (!is_contiguous(tensor)) view = copied(tensor, begin, view, name);
    if (tensor.dtype == DType::boolean) check_bools(view, name);
    out_.push_back({name, std::move(view), limits_.file, ""});
  }

  View copied(const TorchTensor& tensor, const std::byte* begin, const View& view, const std::string& name) {
    copied_ += static_cast<std::int64_t>(view.size_bytes());
    if (copied_ > limits_.most_copied_bytes) {
      fail("tensor ", printable(name), " of shape ", to_string(tensor.shape),
           " repeats the elements of a small storage: refused (more than ", limits_.most_copied_bytes, " bytes)");
    }
    Tensor dense(tensor.shape, tensor.dtype);
    gather(tensor, 0, begin, dense.data());
    keep_.push_back(dense.owner());
    return dense.view();
  }

  void check_bools(const View& view, const std::string& name) const {
    const auto bytes = view.bytes();
    const auto bad = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; });
    if (bad != bytes.end()) fail("tensor ", printable(name), ": a bool byte is neither 0 nor 1");
  }

  const Pickle& pickle_;
  const StorageBytes& storage_bytes_;
  const TorchFileLimits& limits_;
  std::vector<TensorEntry>& out_;
  std::vector<std::shared_ptr<const void>>& keep_;
  std::size_t visits_ = 0;
  std::int64_t copied_ = 0;
};

}  // namespace

void collect_tensors(const Pickle& pickle, const StorageBytes& storage_bytes, const TorchFileLimits& limits,
                     std::vector<TensorEntry>& out, std::vector<std::shared_ptr<const void>>& keep) {
  Collector(pickle, storage_bytes, limits, out, keep).collect();
}

}  // namespace nibble
