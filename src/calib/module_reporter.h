// What a block-wise calibration says while it works: the progress line, a line of the log per module, and the error
// where a module had to be rounded that must not be.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/progress.h"
#include "calib/journal.h"
#include "calib/module_report.h"

namespace nibble {

class ModuleReporter {
 public:
  struct Options {
    std::int64_t modules = 0;                            ///< that there will be
    Journal* journal = nullptr;                          ///< whose log is written; null: none
    bool fallback = true;                                ///< false: a rounded module is an error
    std::function<void(const ModuleReport&)> on_module;  ///< may be empty
  };
  /// `progress` must outlive the object.
  ModuleReporter(Options options, const ProgressCallback& progress)
      : options_(std::move(options)), progress_(progress) {}

  /// `item` is at work, and `done` modules are finished.
  void progress(std::string_view item, std::int64_t done) const;
  /// A module is finished. Throws Error(runtime) naming it when it was rounded and that is not allowed.
  void tell(const ModuleReport& report);

 private:
  Options options_;
  const ProgressCallback& progress_;
  std::int64_t restored_ = 0;  ///< modules taken from the journal
  std::string last_loss_;      ///< of the last module that has one
};

}  // namespace nibble
