#include "base/scratch_array.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <span>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace nibble {
namespace {

/// A mapping of a new file of `bytes` zeros, whose name is gone already.
float* map_file(const std::filesystem::path& folder, std::size_t bytes) {
  std::string name = (folder / "scratch-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) throw runtime_failure("cannot create a file in ", folder.string(), ": ", errno_text());
  ::unlink(name.c_str());
  // Room is taken now: a full disk would otherwise be a crash in the middle of a computation.
  if (const int failed = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)); failed != 0) {
    ::close(fd);
    errno = failed;
    throw runtime_failure("cannot reserve ", bytes, " bytes in ", folder.string(), ": ", errno_text());
  }
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const std::string reason = mapped == MAP_FAILED ? errno_text() : "";
  ::close(fd);
  if (mapped == MAP_FAILED) throw runtime_failure("cannot map a file in ", folder.string(), ": ", reason);
  return static_cast<float*>(mapped);
}

}  // namespace

ScratchArray::ScratchArray(std::int64_t count, const std::filesystem::path& folder) : count_(count) {
  if (folder.empty() || count == 0) {
    memory_.resize(static_cast<std::size_t>(count));
    data_ = memory_.data();
    return;
  }
  data_ = map_file(folder, static_cast<std::size_t>(count) * sizeof(float));
  mapped_ = true;
}

ScratchArray::~ScratchArray() {
  if (mapped_) ::munmap(data_, static_cast<std::size_t>(count_) * sizeof(float));
}

ScratchArray::ScratchArray(ScratchArray&& other) noexcept { *this = std::move(other); }

ScratchArray& ScratchArray::operator=(ScratchArray&& other) noexcept {
  std::swap(memory_, other.memory_);  // keeps where the elements lie
  std::swap(data_, other.data_);
  std::swap(count_, other.count_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

void ScratchArray::release(std::int64_t begin, std::int64_t count) {
  if (mapped_) release_pages(std::as_bytes(std::span(data_ + begin, static_cast<std::size_t>(count))));
}

}  // namespace nibble
