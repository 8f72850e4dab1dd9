// A zip archive as PyTorch writes it, over a memory mapping: stored entries are views into the mapping.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"

namespace nibble {

struct ZipEntry {
  std::string name;
  std::uint64_t index = 0;
  std::int64_t size = 0;        ///< uncompressed
  std::int64_t compressed = 0;  ///< bytes in the file
  bool stored = false;          ///< not compressed
};

class ZipArchive {
 public:
  /// Reads the directory. Throws Error(bad_input) when the archive is broken, encrypted, or names an entry twice.
  explicit ZipArchive(std::shared_ptr<const MappedFile> file);
  ~ZipArchive();
  ZipArchive(const ZipArchive&) = delete;
  ZipArchive& operator=(const ZipArchive&) = delete;

  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* find(const std::string& name) const;

  /// The entry's bytes: of the mapping when it is stored, else unpacked into `keep`, which the caller keeps as long as
  /// the bytes. Refuses entries that would unpack to more than 64 times their size plus 1 MB.
  std::span<const std::byte> bytes(const ZipEntry& entry, std::vector<std::shared_ptr<const void>>& keep) const;

  /// Reads the entry to its end and compares the checksum; throws Error(bad_input) when it differs.
  void verify(const ZipEntry& entry) const;

 private:
  struct State;
  std::shared_ptr<const MappedFile> file_;
  std::unique_ptr<State> state_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

}  // namespace nibble
