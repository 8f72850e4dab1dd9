// Reading files whole or by memory mapping, and writing small files so that they appear whole or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

/// A read-only mapping of a regular file. Pages are loaded on first use and shared with other processes.
class MappedFile {
 public:
  /// Throws Error(bad_input) when the path is missing, unreadable, or not a regular file (folder, FIFO, device).
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size);
  std::filesystem::path path_;
  const std::byte* data_;
  std::size_t size_;
};

/// Tells the system that the pages of a MappedFile that lie inside `bytes` are not needed soon: they leave this
/// process's memory and are read again on the next use. Never for other memory: its contents would be lost.
void release_pages(std::span<const std::byte> bytes);

/// The whole regular file as bytes; Error(bad_input) when it is missing, not regular or larger than `max_bytes`.
std::string read_file(const std::filesystem::path& file, std::int64_t max_bytes = std::int64_t{1} << 34);

/// Writes `content` to `file`.partial, syncs it to the disk and renames it: readers see the old file or the whole new
/// one. Throws Error(runtime) with the reason, after removing the partial file.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);

/// Syncs a folder, so that renames in it survive a power cut. Best effort on file systems without it.
void sync_folder(const std::filesystem::path& folder);

}  // namespace nibble
