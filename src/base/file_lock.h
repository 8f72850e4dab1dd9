// A lock that one process at a time can hold. It dies with its process, so a killed one blocks nothing.
#pragma once
#include <filesystem>

namespace nibble {

class FileLock {
 public:
  /// Makes the file if need be and locks it. Throws Error(bad_input) when another process holds the lock,
  /// Error(runtime) when the file cannot be made.
  explicit FileLock(const std::filesystem::path& file);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace nibble
