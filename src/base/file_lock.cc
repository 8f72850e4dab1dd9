#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace nibble {
namespace {

/// Whether the open file is still what the path names: its last holder may have removed it meanwhile.
bool is_at(int fd, const char* path) {
  struct stat here {
  }, there{};
  return ::fstat(fd, &here) == 0 && ::stat(path, &there) == 0 && here.st_ino == there.st_ino &&
         here.st_dev == there.st_dev;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& file) {
  for (int tries = 0; tries < 100; ++tries) {
    fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) throw runtime_failure("cannot create ", file.string(), ": ", errno_text());
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const bool held = errno == EWOULDBLOCK;
      const std::string reason = held ? "another process is working there" : errno_text();
      ::close(fd_);
      throw bad_input(file.parent_path().string(), ": ", reason);
    }
    if (is_at(fd_, file.c_str())) return;
    ::close(fd_);
  }
  throw runtime_failure("cannot lock ", file.string(), ": it keeps changing");
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace nibble
