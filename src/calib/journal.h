// What lets a long calibration go on after it was killed: a folder beside the output that holds every finished part.
//   OUT.quantize.partial/
//     lock                         one process at a time
//     9f86d081884c7d65/            a job, named after the hash of its identity
//       journal.json               the identity: model, data, recipe, version; and whether the output is being written
//       quantize.jsonl             a line per module
//       unit-00000/                modules solved together: a small checkpoint of the scheme, and their reports
// Everything is written whole or not at all. Jobs with other identities stay until one of them has succeeded.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file_lock.h"
#include "base/json.h"
#include "calib/module_report.h"
#include "quant/solved_quantizer.h"

namespace nibble {

/// What a method keeps of a unit beside its modules' tensors.
struct JournalExtra {
  std::vector<StoredTensor> tensors;  ///< under names that no module's tensor has
  Json json;
};

class Journal {
 public:
  /// Takes the folder of `out` for this job. `identity`: an object of everything that decides the result's bytes. With
  /// `resume` what an earlier run with the same identity finished is kept, else removed. Throws Error(bad_input) when
  /// another process works on the same output, Error(runtime) when the folder cannot be written.
  Journal(const std::filesystem::path& out, const Json& identity, bool resume);

  /// Units that an earlier run finished.
  std::int64_t finished_units() const { return finished_units_; }
  /// Identities of unfinished jobs for the same output that are not this one.
  const std::vector<Json>& others() const { return others_; }

  /// The modules of unit number `unit` as an earlier run stored them, `linear` included; nullopt when it did not. With
  /// `extra` (may be null) a unit that was stored without counts as damaged.
  struct Finished {
    ModuleReport report;
    SolvedModule solved;
  };
  std::optional<std::vector<Finished>> load(std::int64_t unit, const SolvedQuantizer& quantizer, Exec& exec,
                                            JournalExtra* extra = nullptr);
  /// Stores the tensors that `quantizer` holds for the reports' modules, and `extra` (may be null).
  void store(std::int64_t unit, std::span<const ModuleReport> reports, const SolvedQuantizer& quantizer,
             const JournalExtra* extra = nullptr);

  /// A line of quantize.jsonl, on disk when this returns.
  void log(const ModuleReport& report);
  /// All lines so far.
  std::string log_text() const;

  /// Whether an earlier run had begun to write the output, so that what is there is its own.
  bool writing() const { return writing_; }
  void set_writing();
  /// The output is complete: removes the folder.
  void finish();

  /// OUT.quantize.partial.
  static std::filesystem::path folder_of(const std::filesystem::path& out);
  /// Whether some job had begun to write `out`.
  static bool any_writing(const std::filesystem::path& out);

 private:
  std::filesystem::path unit_folder(std::int64_t unit) const;
  void write_journal() const;

  Json identity_;
  std::filesystem::path top_, folder_;
  std::unique_ptr<FileLock> lock_;
  std::vector<Json> others_;
  std::int64_t finished_units_ = 0;
  bool writing_ = false;
};

}  // namespace nibble
