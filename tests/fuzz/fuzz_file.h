// Gives fuzzed bytes to code that wants a file: an anonymous file in memory.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/file.h"

namespace nibble::fuzz {

inline std::shared_ptr<const MappedFile> file_of(const std::uint8_t* data, std::size_t size) {
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (fd < 0) __builtin_trap();
  for (std::size_t at = 0; at < size;) {
    const ssize_t done = ::write(fd, data + at, size - at);
    if (done <= 0) __builtin_trap();
    at += static_cast<std::size_t>(done);
  }
  const auto file = MappedFile::open("/proc/self/fd/" + std::to_string(fd));
  ::close(fd);
  return file;
}

/// Runs `body`; an Error is an answer unless it tells of a bug.
template <class Body>
int expect_answer(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::internal) __builtin_trap();
    for (const char* c = error.what(); *c != 0; ++c) {
      if (*c == '\n') __builtin_trap();  // an error is one line
    }
  }
  return 0;
}

}  // namespace nibble::fuzz
