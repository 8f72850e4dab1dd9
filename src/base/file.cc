#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

/// A file descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// Opens a regular file for reading. O_NONBLOCK: opening a FIFO must not wait for a writer.
std::pair<int, std::size_t> open_regular(const fs::path& file) {
  Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) throw bad_input(file.string(), ": cannot open: ", errno_text());
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw bad_input(file.string(), ": cannot stat: ", errno_text());
  if (!S_ISREG(info.st_mode)) throw bad_input(file.string(), ": not a regular file");
  return {fd.release(), static_cast<std::size_t>(info.st_size)};
}

void write_all(int fd, std::string_view content, const fs::path& file) {
  while (!content.empty()) {
    const ssize_t done = ::write(fd, content.data(), content.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw runtime_failure("cannot write ", file.string(), ": ", errno_text());
    content.remove_prefix(static_cast<std::size_t>(done));
  }
}

}  // namespace

MappedFile::MappedFile(fs::path path, const std::byte* data, std::size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& file) {
  const auto [raw, size] = open_regular(file);
  const Fd fd(raw);
  const std::byte* data = nullptr;
  if (size > 0) {
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
    if (mapped == MAP_FAILED) throw runtime_failure(file.string(), ": cannot map into memory: ", errno_text());
    data = static_cast<const std::byte*>(mapped);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(file, data, size));
}

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  // Advice: when the system does not take it, the pages merely stay.
  if (begin < end) static_cast<void>(::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED));
}

std::string read_file(const fs::path& file, std::int64_t max_bytes) {
  const auto [raw, size] = open_regular(file);
  const Fd fd(raw);
  if (size > static_cast<std::size_t>(max_bytes)) {
    throw bad_input(file.string(), ": ", size, " bytes, more than the ", max_bytes, " allowed here");
  }
  std::string content(size, '\0');
  std::size_t at = 0;
  while (at < size) {
    const ssize_t got = ::read(fd.get(), content.data() + at, size - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw bad_input(file.string(), ": cannot read: ", errno_text());
    if (got == 0) throw bad_input(file.string(), ": became shorter while it was read");
    at += static_cast<std::size_t>(got);
  }
  return content;
}

void write_file_atomically(const fs::path& file, std::string_view content) {
  const fs::path partial = file.string() + ".partial";
  try {
    const Fd fd(::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (fd.get() < 0) throw runtime_failure("cannot create ", partial.string(), ": ", errno_text());
    write_all(fd.get(), content, partial);
    if (::fsync(fd.get()) != 0) throw runtime_failure("cannot sync ", partial.string(), ": ", errno_text());
    if (::rename(partial.c_str(), file.c_str()) != 0) {
      throw runtime_failure("cannot rename ", partial.string(), ": ", errno_text());
    }
  } catch (...) {
    ::unlink(partial.c_str());
    throw;
  }
  sync_folder(file.parent_path());
}

void sync_folder(const fs::path& folder) {
  const Fd fd(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) ::fsync(fd.get());
}

}  // namespace nibble
