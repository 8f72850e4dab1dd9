#include "checkpoint/zip_archive.h"

#include <zip.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

/// The mapping as libzip's source. It remembers where the last read began: libzip has no call that tells where a stored
/// entry's bytes lie in the file.
struct Window {
  std::span<const std::byte> bytes;
  std::uint64_t position = 0;
  std::uint64_t last_read = 0;
  zip_error_t error{};

  static zip_int64_t call(void* self, void* data, zip_uint64_t length, zip_source_cmd_t command) {
    return static_cast<Window*>(self)->handle(data, length, command);
  }

  zip_int64_t handle(void* data, zip_uint64_t length, zip_source_cmd_t command) {
    switch (command) {
      case ZIP_SOURCE_OPEN: position = 0; return 0;
      case ZIP_SOURCE_READ: {
        const std::uint64_t count = std::min<std::uint64_t>(length, bytes.size() - position);
        last_read = position;
        if (count > 0) std::memcpy(data, bytes.data() + position, count);
        position += count;
        return static_cast<zip_int64_t>(count);
      }
      case ZIP_SOURCE_SEEK: {
        const zip_int64_t to = zip_source_seek_compute_offset(position, bytes.size(), data, length, &error);
        if (to < 0) return -1;
        position = static_cast<std::uint64_t>(to);
        return 0;
      }
      case ZIP_SOURCE_TELL: return static_cast<zip_int64_t>(position);
      case ZIP_SOURCE_STAT: {
        auto* stat = static_cast<zip_stat_t*>(data);
        zip_stat_init(stat);
        stat->valid = ZIP_STAT_SIZE;
        stat->size = bytes.size();
        return sizeof *stat;
      }
      case ZIP_SOURCE_ERROR: return zip_error_to_data(&error, data, length);
      case ZIP_SOURCE_CLOSE:
      case ZIP_SOURCE_FREE: return 0;
      case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT,
                                              ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE, ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL,
                                              ZIP_SOURCE_SUPPORTS, -1);
      default: zip_error_set(&error, ZIP_ER_OPNOTSUPP, 0); return -1;
    }
  }
};

struct CloseFile {
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using OpenFile = std::unique_ptr<zip_file_t, CloseFile>;

}  // namespace

struct ZipArchive::State {
  Window window;
  zip_t* zip = nullptr;
  ~State() {
    if (zip != nullptr) zip_discard(zip);
  }

  OpenFile open(const ZipEntry& entry, zip_flags_t flags, const std::string& where) const {
    OpenFile file(zip_fopen_index(zip, entry.index, flags));
    if (file == nullptr) {
      throw bad_input(where, ": entry ", printable(entry.name), ": ", zip_error_strerror(zip_get_error(zip)));
    }
    return file;
  }
};

ZipArchive::ZipArchive(std::shared_ptr<const MappedFile> file) : file_(std::move(file)), state_(new State) {
  const std::string where = file_->path().string();
  state_->window.bytes = file_->bytes();
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_function_create(&Window::call, &state_->window, &error);
  if (source != nullptr) {
    state_->zip = zip_open_from_source(source, ZIP_RDONLY, &error);
    if (state_->zip == nullptr) zip_source_free(source);
  }
  const std::string reason = state_->zip == nullptr ? zip_error_strerror(&error) : "";
  zip_error_fini(&error);
  if (state_->zip == nullptr) throw bad_input(where, ": broken zip archive (truncated?): ", reason);
  const zip_int64_t count = zip_get_num_entries(state_->zip, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    const auto index = static_cast<zip_uint64_t>(i);
    constexpr zip_uint64_t needed = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if (zip_stat_index(state_->zip, index, ZIP_FL_ENC_RAW, &stat) != 0 || (stat.valid & needed) != needed) {
      throw bad_input(where, ": broken zip archive: entry ", i);
    }
    ZipEntry entry{stat.name, index, static_cast<std::int64_t>(stat.size), static_cast<std::int64_t>(stat.comp_size),
                   stat.comp_method == ZIP_CM_STORE};
    if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && stat.encryption_method != ZIP_EM_NONE) {
      throw bad_input(where, ": entry ", printable(entry.name), " is encrypted");
    }
    if (entry.size < 0 || entry.compressed < 0 || entry.compressed > static_cast<std::int64_t>(file_->bytes().size())) {
      throw bad_input(where, ": entry ", printable(entry.name), " is larger than the file");
    }
    if (!by_name_.emplace(entry.name, entries_.size()).second) {
      throw bad_input(where, ": two entries named ", printable(entry.name));
    }
    entries_.push_back(std::move(entry));
  }
}

ZipArchive::~ZipArchive() = default;

const ZipEntry* ZipArchive::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

std::span<const std::byte> ZipArchive::bytes(const ZipEntry& entry,
                                             std::vector<std::shared_ptr<const void>>& keep) const {
  const std::string where = file_->path().string();
  if (entry.size == 0) return {};
  if (entry.stored) {
    if (entry.size != entry.compressed) throw bad_input(where, ": entry ", printable(entry.name), ": sizes disagree");
    const OpenFile file = state_->open(entry, ZIP_FL_COMPRESSED, where);
    char first = 0;
    if (zip_fread(file.get(), &first, 1) != 1) throw bad_input(where, ": entry ", printable(entry.name), " is cut off");
    const std::uint64_t begin = state_->window.last_read, all = file_->bytes().size();
    if (begin > all || static_cast<std::uint64_t>(entry.size) > all - begin) {
      throw bad_input(where, ": entry ", printable(entry.name), " reaches beyond the end of the file (truncated?)");
    }
    return file_->bytes().subspan(begin, static_cast<std::size_t>(entry.size));
  }
  if (entry.size / 64 > entry.compressed + (1 << 14)) {
    throw bad_input(where, ": entry ", printable(entry.name), " would unpack from ", entry.compressed, " to ",
                    entry.size, " bytes: refused");
  }
  const auto unpacked = std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(entry.size));
  const OpenFile file = state_->open(entry, 0, where);
  if (zip_fread(file.get(), unpacked->data(), unpacked->size()) != entry.size) {
    throw bad_input(where, ": entry ", printable(entry.name), " cannot be unpacked");
  }
  keep.push_back(unpacked);
  return *unpacked;
}

void ZipArchive::verify(const ZipEntry& entry) const {
  const OpenFile file = state_->open(entry, 0, file_->path().string());
  std::vector<char> buffer(std::size_t{1} << 20);
  std::int64_t total = 0;
  while (true) {
    const zip_int64_t got = zip_fread(file.get(), buffer.data(), buffer.size());
    if (got < 0 || total + got > entry.size) {
      throw bad_input(file_->path().string(), ": entry ", printable(entry.name),
                      " is damaged: ", zip_file_strerror(file.get()));
    }
    if (got == 0) break;
    total += got;
  }
  if (total != entry.size) throw bad_input(file_->path().string(), ": entry ", printable(entry.name), " is cut off");
}

}  // namespace nibble
