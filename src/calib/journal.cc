#include "calib/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/writer.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

constexpr const char* kJournal = "journal.json";
constexpr const char* kLog = "quantize.jsonl";

fs::path made(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw runtime_failure("cannot make the folder ", folder.string(), ": ", failed.message());
  return folder;
}

void remove_folder(const fs::path& folder) {
  std::error_code failed;
  fs::remove_all(folder, failed);
  if (failed) throw runtime_failure("cannot remove ", folder.string(), ": ", failed.message());
}

/// journal.json of every job in the folder; those that cannot be read are no jobs.
std::vector<std::pair<fs::path, Json>> journals_in(const fs::path& top) {
  std::vector<std::pair<fs::path, Json>> found;
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(top, failed)) {
    try {
      if (fs::exists(entry.path() / kJournal, failed))
        found.emplace_back(entry.path(), Json::read(entry.path() / kJournal));
    } catch (const Error&) {
    }
  }
  return found;
}

bool says_writing(const Json& journal) {
  const Json* writing = journal.get("writing");
  return writing != nullptr && writing->is_bool() && writing->boolean(kJournal);
}

Json names_of(const std::vector<StoredTensor>& tensors) {
  Json::Array names;
  for (const StoredTensor& tensor : tensors) names.emplace_back(tensor.name);
  return names;
}

/// Config of a unit: what the scheme's reader needs, the reports, and what the method adds.
Json unit_config(std::span<const ModuleReport> reports, const SolvedQuantizer& quantizer, const JournalExtra* extra) {
  Json::Array modules;
  for (const ModuleReport& report : reports) {
    modules.push_back(Json::Object{{"report", json_of(report)},
                                   {"tensors", names_of(quantizer.modules().at(report.module).tensors)}});
  }
  Json config = Json::Object{{"modules", std::move(modules)}};
  if (auto quantization = quantizer.quantization_config({}))
    config.set("quantization_config", std::move(*quantization));
  if (extra != nullptr) config.set("extra", Json::Object{{"tensors", names_of(extra->tensors)}, {"json", extra->json}});
  return config;
}

/// The tensors of a unit that `names` lists.
std::vector<StoredTensor> tensors_of(const Json& names, const Checkpoint& unit, const std::string& where) {
  std::vector<StoredTensor> out;
  for (const Json& name : names.array(where)) out.push_back({name.string(where), Tensor(unit.at(name.string(where)))});
  return out;
}

JournalExtra extra_of(const Checkpoint& unit) {
  const std::string where = (unit.folder() / "config.json").string();
  const Json* extra = unit.config().find("extra");
  const Json* tensors = extra == nullptr ? nullptr : extra->find("tensors");
  const Json* json = extra == nullptr ? nullptr : extra->find("json");
  if (tensors == nullptr || json == nullptr) throw bad_input(where, ": not a unit of this method's journal");
  return {tensors_of(*tensors, unit, where), *json};
}

/// One module of a unit.
Journal::Finished module_of(const Json& json, const Checkpoint& unit, const SchemeReader& reader, Exec& exec) {
  const std::string where = (unit.folder() / "config.json").string();
  const Json *report = json.find("report"), *tensors = json.find("tensors");
  if (report == nullptr || tensors == nullptr) throw bad_input(where, ": not a unit of a journal");
  Journal::Finished out;
  out.report = module_report_of(*report, where);
  const Shape& shape = out.report.shape;
  if (shape.size() != 2) throw bad_input(where, ": a shape that is no matrix");
  out.solved.tensors = tensors_of(*tensors, unit, where);
  out.solved.linear = reader.load(out.report.module, {shape[0], shape[1]}, exec);
  out.solved.loss = out.report.loss;
  out.solved.damp = out.report.damp;
  out.solved.dead = out.report.dead;
  out.solved.rounded = out.report.rounded;
  return out;
}

}  // namespace

fs::path Journal::folder_of(const fs::path& out) {
  fs::path place = fs::absolute(out).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();  // "out/"
  place += ".quantize.partial";
  return place;
}

bool Journal::any_writing(const fs::path& out) {
  for (const auto& [folder, journal] : journals_in(folder_of(out))) {
    if (says_writing(journal)) return true;
  }
  return false;
}

Journal::Journal(const fs::path& out, const Json& identity, bool resume)
    : identity_(identity), top_(made(folder_of(out))), lock_(std::make_unique<FileLock>(top_ / "lock")) {
  const std::string text = identity.dump();
  folder_ = top_ / sha256_hex(std::as_bytes(std::span(text))).substr(0, 16);
  if (!resume) remove_folder(folder_);
  made(folder_);
  for (const auto& [folder, journal] : journals_in(top_)) {
    const Json* other = journal.find("identity");
    if (other == nullptr) continue;
    if (folder == folder_ && *other == identity_) writing_ = says_writing(journal);
    if (folder != folder_) others_.push_back(*other);
  }
  while (fs::exists(unit_folder(finished_units_) / "model.safetensors")) ++finished_units_;
  write_file_atomically(folder_ / kLog, "");  // load() and store() fill it again
  write_journal();
}

fs::path Journal::unit_folder(std::int64_t unit) const {
  char name[32];
  std::snprintf(name, sizeof name, "unit-%05lld", static_cast<long long>(unit));
  return folder_ / name;
}

void Journal::write_journal() const {
  write_file_atomically(folder_ / kJournal,
                        Json(Json::Object{{"identity", identity_}, {"writing", writing_}}).dump(2) + "\n");
}

std::optional<std::vector<Journal::Finished>> Journal::load(std::int64_t unit, const SolvedQuantizer& quantizer,
                                                            Exec& exec, JournalExtra* extra) {
  if (unit >= finished_units_) return std::nullopt;
  try {
    const auto checkpoint = Checkpoint::open(unit_folder(unit).string());
    const auto reader = quantizer.scheme().open(checkpoint);
    const Json* modules = checkpoint->config().find("modules");
    if (modules == nullptr) return std::nullopt;
    std::vector<Finished> finished;
    for (const Json& json : modules->array(kJournal)) finished.push_back(module_of(json, *checkpoint, *reader, exec));
    if (extra != nullptr) *extra = extra_of(*checkpoint);
    for (const Finished& module : finished) log(module.report);
    return finished;
  } catch (const Error&) {
    return std::nullopt;  // damaged since it was written: its work is done again
  }
}

void Journal::store(std::int64_t unit, std::span<const ModuleReport> reports, const SolvedQuantizer& quantizer,
                    const JournalExtra* extra) {
  std::vector<const StoredTensor*> all;
  for (const ModuleReport& report : reports) {
    for (const StoredTensor& stored : quantizer.modules().at(report.module).tensors) all.push_back(&stored);
  }
  if (extra != nullptr) {
    for (const StoredTensor& stored : extra->tensors) all.push_back(&stored);
  }
  std::vector<TensorPlan> plan;
  for (const StoredTensor* stored : all) plan.push_back({stored->name, stored->tensor.dtype(), stored->tensor.shape()});
  WriterOptions options;
  options.max_shard_bytes = std::int64_t{1} << 60;  // one file: it is there or not
  CheckpointWriter writer(unit_folder(unit), std::move(plan), options);
  for (const StoredTensor* stored : all) writer.write(stored->name, stored->tensor.view().bytes());
  writer.add_file("config.json", unit_config(reports, quantizer, extra).dump(2) + "\n");
  writer.commit();
}

void Journal::log(const ModuleReport& report) {
  const fs::path file = folder_ / kLog;
  const std::string line = json_of(report).dump() + "\n";
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const bool done = fd >= 0 && ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  const std::string reason = done ? "" : errno_text();
  if (fd >= 0) ::close(fd);
  if (!done) throw runtime_failure("cannot write ", file.string(), ": ", reason);
}

std::string Journal::log_text() const { return read_file(folder_ / kLog); }

void Journal::set_writing() {
  writing_ = true;
  write_journal();
}

void Journal::finish() {
  // Without its journal the job is over, whatever is left of it when this is interrupted. The lock goes last: whoever
  // comes meanwhile finds it held, or nothing at all.
  std::error_code ignored;
  fs::remove(folder_ / kJournal, ignored);
  for (const fs::directory_entry& entry : fs::directory_iterator(top_, ignored)) {
    if (entry.path().filename() != "lock") fs::remove_all(entry.path(), ignored);
  }
  fs::remove(top_ / "lock", ignored);
  fs::remove(top_, ignored);
  lock_.reset();
}

}  // namespace nibble
