#include "checkpoint/torch_file.h"

#include <cstring>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "checkpoint/pickle/machine.h"
#include "checkpoint/pickle/opcodes.h"
#include "checkpoint/torch_tensors.h"
#include "checkpoint/zip_archive.h"

namespace nibble {
namespace {

constexpr std::string_view kZipMagic = "PK\3\4";
/// torch.serialization.MAGIC_NUMBER as a pickled LONG1, protocol 2.
constexpr std::string_view kLegacyMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool begins_with(const MappedFile& file, std::string_view magic) {
  return text_of(file.bytes()).substr(0, magic.size()) == magic;
}

/// Copies of non-contiguous tensors may take a multiple of the file: transposed weights once, broadcast masks more.
std::int64_t copy_limit(const MappedFile& file) {
  return 4 * static_cast<std::int64_t>(file.bytes().size()) + (std::int64_t{64} << 20);
}

/// The one entry <archive>/data.pkl.
const ZipEntry& pickle_entry(const ZipArchive& zip, const std::string& where) {
  const ZipEntry* found = nullptr;
  for (const ZipEntry& entry : zip.entries()) {
    const std::size_t slash = entry.name.find('/');
    const std::string_view base =
        slash == std::string::npos ? entry.name : std::string_view(entry.name).substr(slash + 1);
    if (base != "data.pkl") continue;
    if (found != nullptr) throw bad_input(where, ": more than one data.pkl in the archive");
    found = &entry;
  }
  if (found == nullptr) throw bad_input(where, ": a zip archive without data.pkl: not written by torch.save");
  return *found;
}

TorchContent read_zip(const std::shared_ptr<const MappedFile>& file) {
  const std::string where = file->path().string();
  const ZipArchive zip(file);
  const ZipEntry& main = pickle_entry(zip, where);
  const std::string prefix = main.name.substr(0, main.name.size() - std::string_view("data.pkl").size());
  TorchContent content;
  if (const ZipEntry* order = zip.find(prefix + "byteorder"); order != nullptr) {
    if (text_of(zip.bytes(*order, content.keep)) != "little")
      throw bad_input(where, ": written on a big-endian machine");
  }
  std::vector<std::shared_ptr<const void>> pickle_memory;
  const Pickle pickle = read_pickle(zip.bytes(main, pickle_memory), where);
  std::unordered_map<std::string, std::span<const std::byte>> opened;
  const StorageBytes storage_bytes = [&](const TorchStorage& storage) {
    const std::string name = prefix + "data/" + std::string(storage.key);
    auto found = opened.find(name);
    if (found == opened.end()) {
      const ZipEntry* entry = zip.find(name);
      if (entry == nullptr) throw bad_input(where, ": storage ", printable(name), " is missing");
      found = opened.emplace(name, zip.bytes(*entry, content.keep)).first;
    }
    if (static_cast<std::int64_t>(found->second.size()) < storage.bytes) {
      throw bad_input(where, ": storage ", printable(name), " should hold ", storage.bytes, " bytes, but has ",
                      found->second.size());
    }
    return found->second;
  };
  collect_tensors(pickle, storage_bytes, {file->path(), copy_limit(*file)}, content.tensors, content.keep);
  return content;
}

/// The pickles at the head of a legacy file: magic, protocol, system info, the object, the storages' keys.
struct LegacyHead {
  std::vector<Pickle> pickles;
  std::size_t size = 0;
};

LegacyHead read_legacy_head(const MappedFile& file) {
  LegacyHead head;
  for (int i = 0; i < 5; ++i) {
    head.pickles.push_back(read_pickle(file.bytes().subspan(head.size), file.path().string()));
    head.size += head.pickles.back().size;
  }
  return head;
}

TorchContent read_legacy(const std::shared_ptr<const MappedFile>& file) {
  const std::string where = file->path().string();
  const LegacyHead head = read_legacy_head(*file);
  const Pickle& main = head.pickles[3];
  const Pickle& keys = head.pickles[4];
  std::unordered_map<std::string_view, const TorchStorage*> declared;
  for (const TorchStorage& storage : main.storages) declared.emplace(storage.key, &storage);
  if (keys.root.kind != PickleKind::list) throw bad_input(where, ": the list of storages is missing");
  std::unordered_map<std::string_view, std::span<const std::byte>> bytes_of;
  auto rest = file->bytes().subspan(head.size);
  for (const PickleValue& key : keys.items(keys.root)) {
    const auto found = key.kind == PickleKind::text ? declared.find(keys.text(key)) : declared.end();
    if (found == declared.end() || !found->second->dtype) throw bad_input(where, ": a storage that nothing refers to");
    std::int64_t count = 0;
    if (rest.size() < 8) throw bad_input(where, ": ends inside the storages (truncated?)");
    std::memcpy(&count, rest.data(), 8);
    const auto size = static_cast<std::int64_t>(size_of(*found->second->dtype));
    if (count < 0 || count > static_cast<std::int64_t>(rest.size() - 8) / size || count * size < found->second->bytes) {
      throw bad_input(where, ": storage ", printable(found->first), " is cut off or of a wrong size");
    }
    bytes_of[found->first] = rest.subspan(8, static_cast<std::size_t>(count * size));
    rest = rest.subspan(8 + static_cast<std::size_t>(count * size));
  }
  const StorageBytes storage_bytes = [&](const TorchStorage& storage) {
    const auto found = bytes_of.find(storage.key);
    if (found == bytes_of.end() || static_cast<std::int64_t>(found->second.size()) < storage.bytes) {
      throw bad_input(where, ": storage ", printable(storage.key), " is missing or too short");
    }
    return found->second;
  };
  TorchContent content;
  collect_tensors(main, storage_bytes, {file->path(), copy_limit(*file)}, content.tensors, content.keep);
  return content;
}

}  // namespace

bool is_torch_file(const MappedFile& file) {
  const auto bytes = file.bytes();
  // The zip magic is also the length of a 67 MB safetensors header, whose text begins at byte 8.
  const bool zip = begins_with(file, kZipMagic) && (bytes.size() < 9 || bytes[8] != std::byte{'{'});
  return zip || begins_with(file, kLegacyMagic);
}

TorchContent read_torch_file(const std::shared_ptr<const MappedFile>& file) {
  if (!is_torch_file(*file)) {
    throw bad_input(file->path().string(), ": not a PyTorch checkpoint (neither zip nor the older format)");
  }
  return begins_with(*file, kZipMagic) ? read_zip(file) : read_legacy(file);
}

void verify_torch_file(const std::shared_ptr<const MappedFile>& file) {
  if (!begins_with(*file, kZipMagic)) return;
  const ZipArchive zip(file);
  for (const ZipEntry& entry : zip.entries()) zip.verify(entry);
}

std::string disassemble_torch_file(const std::shared_ptr<const MappedFile>& file) {
  if (begins_with(*file, kZipMagic)) {
    const ZipArchive zip(file);
    std::vector<std::shared_ptr<const void>> keep;
    return disassemble_pickle(zip.bytes(pickle_entry(zip, file->path().string()), keep));
  }
  std::string out;
  std::size_t at = 0;
  for (int i = 0; i < 5; ++i) {
    const auto rest = file->bytes().subspan(at);
    out += disassemble_pickle(rest.first(std::min<std::size_t>(rest.size(), std::size_t{1} << 28)));
    at += pickle_length(rest);
  }
  return out;
}

}  // namespace nibble
