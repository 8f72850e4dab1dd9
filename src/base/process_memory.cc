#include "base/process_memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

namespace nibble {
namespace {

/// A field of /proc/self/status in bytes; -1: none.
std::int64_t status_bytes(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::strtoll(line.c_str() + field.size(), nullptr, 10) * 1024;
  }
  return -1;
}

}  // namespace

std::int64_t resident_bytes() {
  const std::int64_t bytes = status_bytes("VmRSS:");
  return bytes < 0 ? 0 : bytes;
}

std::int64_t peak_resident_bytes() {
  const std::int64_t bytes = status_bytes("VmHWM:");
  if (bytes >= 0) return bytes;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

std::int64_t physical_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), size = ::sysconf(_SC_PAGESIZE);
  return pages < 0 || size < 0 ? 0 : static_cast<std::int64_t>(pages) * size;
}

void return_large_blocks() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
#endif
}

}  // namespace nibble
