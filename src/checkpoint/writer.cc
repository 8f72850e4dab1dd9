#include "checkpoint/writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::int64_t bytes_of(const TensorPlan& tensor) {
  const auto size = size_of(tensor.dtype);
  return count_of(tensor.shape, size) * static_cast<std::int64_t>(size);
}

/// Which tensors go into which shard, as huggingface_hub's split_state_dict_into_shards_factory decides: in plan order,
/// a new shard when the next tensor would pass the limit, an own shard for one that is larger than the limit.
std::vector<std::vector<std::size_t>> plan_shards(const std::vector<TensorPlan>& plan, std::int64_t limit) {
  std::vector<std::vector<std::size_t>> shards;
  std::vector<std::size_t> current;
  std::int64_t size = 0;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const std::int64_t bytes = bytes_of(plan[i]);
    if (bytes > limit) {
      shards.push_back({i});
      continue;
    }
    if (bytes > limit - size) {
      shards.push_back(std::exchange(current, {}));
      size = 0;
    }
    current.push_back(i);
    size += bytes;
  }
  if (!current.empty() || shards.empty()) shards.push_back(std::move(current));
  return shards;
}

std::string shard_name(std::size_t number, std::size_t count) {
  if (count == 1) return kSingle;
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", number + 1, count);
  return name;
}

/// Whether `name` is one of the files that an earlier save put here: "model-00001-of-00003.safetensors", whole or
/// partial.
bool is_own_shard(std::string name) {
  constexpr std::string_view suffix = ".partial";
  if (name.size() > suffix.size() && name.substr(name.size() - suffix.size()) == suffix) {
    name.resize(name.size() - suffix.size());
  }
  std::size_t number = 0, count = 0;
  int end = 0;
  return std::sscanf(name.c_str(), "model-%zu-of-%zu.safetensors%n", &number, &count, &end) == 2 &&
         end == static_cast<int>(name.size());
}

/// A file being written next to its final place.
struct Partial {
  fs::path final_path;
  fs::path path;
  int fd = -1;

  void create(std::int64_t size) {
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) throw runtime_failure("cannot create ", path.string(), ": ", errno_text());
    // Reserving the blocks tells a full disk from the start; file systems without it answer EOPNOTSUPP.
    if (size > 0 && ::fallocate(fd, 0, 0, size) != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
      throw runtime_failure("cannot reserve ", size, " bytes for ", path.string(), ": ", errno_text());
    }
  }

  void write(std::span<const std::byte> bytes, std::int64_t offset) const {
    while (!bytes.empty()) {
      const ssize_t done = ::pwrite(fd, bytes.data(), bytes.size(), offset);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) throw runtime_failure("cannot write ", path.string(), ": ", errno_text());
      bytes = bytes.subspan(static_cast<std::size_t>(done));
      offset += done;
    }
  }

  void finish() {
    if (::fsync(fd) != 0) throw runtime_failure("cannot sync ", path.string(), ": ", errno_text());
    const int closed = std::exchange(fd, -1);
    if (::close(closed) != 0) throw runtime_failure("cannot close ", path.string(), ": ", errno_text());
  }

  void publish() const {
    if (::rename(path.c_str(), final_path.c_str()) != 0) {
      throw runtime_failure("cannot rename ", path.string(), ": ", errno_text());
    }
  }

  void discard() {
    if (fd >= 0) ::close(std::exchange(fd, -1));
    ::unlink(path.c_str());
  }
};

struct Shard {
  Partial file;
  SafetensorsHeader header;
  std::vector<std::size_t> tensors;  ///< positions in the plan
  std::size_t left = 0;              ///< tensors not yet written
  std::int64_t bytes() const { return static_cast<std::int64_t>(header.bytes.size()) + header.data_bytes; }
};

/// Where a tensor of the plan goes.
struct Place {
  std::size_t shard = 0;
  std::int64_t offset = 0;
};

}  // namespace

struct CheckpointWriter::State {
  fs::path folder;
  std::vector<TensorPlan> plan;
  std::vector<Place> places;
  std::vector<Shard> shards;
  std::vector<std::pair<std::string, std::string>> side_files;
  std::vector<Partial> partials;  ///< of side files and the index
  std::string index;
  std::size_t next = 0;
  bool committed = false;
  int lock = -1;  ///< of the folder, held while the writer lives

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (lock >= 0) ::close(lock);
  }

  void check_plan() const {
    std::unordered_set<std::string_view> names;
    for (const TensorPlan& tensor : plan) {
      if (!names.insert(tensor.name).second || tensor.name == "__metadata__") {
        throw bad_input("cannot save two tensors named \"", printable(tensor.name), "\"");
      }
    }
  }

  void make_shards(const WriterOptions& options) {
    const auto groups = plan_shards(plan, options.max_shard_bytes);
    places.resize(plan.size());
    for (std::size_t s = 0; s < groups.size(); ++s) {
      std::vector<TensorPlan> part;
      for (const std::size_t i : groups[s]) part.push_back(plan[i]);
      Shard shard;
      shard.header = make_safetensors_header(part, options.metadata);
      shard.file.final_path = folder / shard_name(s, groups.size());
      shard.file.path = shard.file.final_path.string() + ".partial";
      shard.tensors = groups[s];
      shard.left = groups[s].size();
      for (std::size_t i = 0; i < groups[s].size(); ++i) {
        places[groups[s][i]] = {s, static_cast<std::int64_t>(shard.header.bytes.size()) + shard.header.offsets[i]};
      }
      shards.push_back(std::move(shard));
    }
    if (shards.size() > 1) make_index();
  }

  void make_index() {
    std::int64_t total = 0;
    std::vector<std::size_t> order(plan.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
      total += bytes_of(plan[i]);
    }
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return plan[a].name < plan[b].name; });
    Json::Object map;
    map.reserve(plan.size());
    for (const std::size_t i : order) {
      map.emplace_back(plan[i].name, shards[places[i].shard].file.final_path.filename().string());
    }
    const Json json = Json::Object{{"metadata", Json::Object{{"total_size", total}}}, {"weight_map", std::move(map)}};
    index = json.dump(2, true) + "\n";
  }

  std::int64_t total() const {
    std::int64_t sum = static_cast<std::int64_t>(index.size());
    for (const Shard& shard : shards) sum += shard.bytes();
    for (const auto& [name, content] : side_files) sum += static_cast<std::int64_t>(content.size());
    return sum;
  }

  /// Two processes must not write the same partial files. A lock dies with its process, so a killed save blocks
  /// nothing.
  void lock_folder() {
    lock = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock >= 0 && ::flock(lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw runtime_failure(folder.string(), ": another process is writing here");
    }
  }

  void check_folder() {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error || !fs::is_directory(folder, error)) {
      throw runtime_failure("cannot make the folder ", folder.string(), ": ", error ? error.message() : "not a folder");
    }
    lock_folder();
    for (const char* foreign : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
      if (fs::exists(folder / foreign, error)) {
        throw bad_input(folder.string(), ": holds another checkpoint's ", foreign, "; choose an empty folder");
      }
    }
    struct statvfs info {};
    if (::statvfs(folder.c_str(), &info) != 0) return;
    const auto free = static_cast<std::int64_t>(static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize);
    if (free < total()) {
      throw runtime_failure("not enough disk space in ", folder.string(), ": ", total(), " bytes are needed, ", free,
                            " are free");
    }
  }

  void open_shard(Shard& shard) const {
    shard.file.create(shard.bytes());
    shard.file.write(std::as_bytes(std::span(shard.header.bytes)), 0);
  }

  void write_small(const std::string& name, const std::string& content) {
    if (name.find('/') != std::string::npos) {
      std::error_code ignored;  // create() below says what is wrong
      fs::create_directories((folder / name).parent_path(), ignored);
    }
    partials.push_back({folder / name, folder / (name + ".partial"), -1});
    Partial& file = partials.back();
    file.create(static_cast<std::int64_t>(content.size()));
    file.write(std::as_bytes(std::span(content)), 0);
    file.finish();
  }

  /// Files that would make a half-published folder look like a whole model: an earlier save's entry points.
  void remove_entry_points() const {
    for (const char* name : {kSingle, kIndex}) ::unlink((folder / name).c_str());
    sync_folder(folder);
  }

  /// Files that say how an earlier save's tensors are to be read, or were made.
  void remove_stale_descriptions() const {
    for (const char* name : {"quanto_qmap.json", "quantize_config.json", "quant_config.json", "quantize.jsonl"}) {
      const auto is_this = [&](const auto& file) { return file.first == name; };
      if (std::none_of(side_files.begin(), side_files.end(), is_this)) ::unlink((folder / name).c_str());
    }
  }

  /// Also what killed saves left half written.
  void remove_stale_shards() const {
    for (const std::string name : {kSingle, kIndex}) ::unlink((folder / (name + ".partial")).c_str());
    std::unordered_set<std::string> own;
    for (const Shard& shard : shards) own.insert(shard.file.final_path.filename().string());
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
      const std::string name = entry.path().filename().string();
      if (is_own_shard(name) && !own.contains(name)) ::unlink(entry.path().c_str());
    }
  }

  void publish() {
    remove_entry_points();
    remove_stale_descriptions();
    const std::size_t sides = side_files.size();
    for (std::size_t i = 0; i < sides; ++i) partials[i].publish();
    if (shards.size() > 1) {
      for (const Shard& shard : shards) shard.file.publish();
    }
    sync_folder(folder);
    if (shards.size() > 1) {
      partials.back().publish();
    } else {
      shards[0].file.publish();
    }
    sync_folder(folder);
    committed = true;
    remove_stale_shards();
  }
};

CheckpointWriter::CheckpointWriter(fs::path folder, std::vector<TensorPlan> plan, WriterOptions options)
    : state_(std::make_unique<State>()) {
  if (options.max_shard_bytes <= 0) throw bad_input("the largest shard size must be positive");
  state_->folder = std::move(folder);
  state_->plan = std::move(plan);
  state_->check_plan();
  state_->make_shards(options);
  state_->check_folder();
}

CheckpointWriter::~CheckpointWriter() {
  if (state_->committed) return;
  for (Shard& shard : state_->shards) shard.file.discard();
  for (Partial& file : state_->partials) file.discard();
}

void CheckpointWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  State& s = *state_;
  check(s.next < s.plan.size() && s.plan[s.next].name == name,
        "CheckpointWriter::write: not the next tensor of the plan");
  check(static_cast<std::int64_t>(bytes.size()) == bytes_of(s.plan[s.next]), "CheckpointWriter::write: size");
  const Place place = s.places[s.next];
  Shard& shard = s.shards[place.shard];
  if (shard.left == shard.tensors.size()) s.open_shard(shard);
  shard.file.write(bytes, place.offset);
  ++s.next;
  if (--shard.left == 0) shard.file.finish();
}

void CheckpointWriter::add_file(const std::string& name, std::string content) {
  const fs::path path(name);
  const auto leaves = [](const fs::path& part) { return part == ".." || part == "." || part.empty(); };
  if (name.empty() || path.is_absolute() || name.find('\0') != std::string::npos ||
      std::any_of(path.begin(), path.end(), leaves)) {
    throw bad_input("\"", printable(name), "\" is not a file name inside the folder");
  }
  for (auto& [other, old] : state_->side_files) {
    if (other != name) continue;
    old = std::move(content);
    return;
  }
  state_->side_files.emplace_back(name, std::move(content));
}

void CheckpointWriter::commit() {
  State& s = *state_;
  check(!s.committed && s.next == s.plan.size(), "CheckpointWriter::commit: tensors are missing");
  if (s.plan.empty()) {
    s.open_shard(s.shards[0]);
    s.shards[0].file.finish();
  }
  for (const auto& [name, content] : s.side_files) s.write_small(name, content);
  if (s.shards.size() > 1) s.write_small(kIndex, s.index);
  s.publish();
}

std::int64_t CheckpointWriter::total_bytes() const { return state_->total(); }

std::int64_t parse_byte_size(const std::string& text) {
  static constexpr std::pair<std::string_view, std::int64_t> units[] = {{"", 1},
                                                                        {"B", 1},
                                                                        {"KB", 1000},
                                                                        {"MB", 1000000},
                                                                        {"GB", 1000000000},
                                                                        {"TB", 1000000000000},
                                                                        {"KIB", 1 << 10},
                                                                        {"MIB", 1 << 20},
                                                                        {"GIB", 1 << 30},
                                                                        {"TIB", std::int64_t{1} << 40}};
  std::size_t digits = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
  std::string unit = text.substr(digits);
  for (char& c : unit) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  for (const auto& [name, factor] : units) {
    if (unit != name || digits == 0 || digits > 18) continue;
    const std::int64_t number = std::stoll(text.substr(0, digits));
    if (number > 0 && number <= (std::int64_t{1} << 60) / factor) return number * factor;
  }
  throw bad_input("\"", printable(text), "\" is not a size like 5GB, 500MB, 2GiB or 1000000");
}

}  // namespace nibble
