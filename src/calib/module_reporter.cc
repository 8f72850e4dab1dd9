#include "calib/module_reporter.h"

#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace nibble {

void ModuleReporter::progress(std::string_view item, std::int64_t done) const {
  if (!progress_) return;
  const std::string text = last_loss_.empty() ? std::string(item) : cat(item, "  last loss ", last_loss_);
  progress_({"calibrating", text, done, options_.modules, restored_});
}

void ModuleReporter::tell(const ModuleReport& report) {
  if (report.rounded && !options_.fallback) {
    throw runtime_failure(report.module, report.tokens == 0 ? ": no token reached it" : ": no damping helped",
                          ", and rounding to nearest is not allowed here; more or other calibration data may help");
  }
  if (report.restored) ++restored_;
  if (options_.journal != nullptr && !report.restored) options_.journal->log(report);
  if (std::isfinite(report.loss)) {
    char loss[32];
    std::snprintf(loss, sizeof loss, "%.3g", report.loss);
    last_loss_ = loss;
  }
  if (options_.on_module) options_.on_module(report);
}

}  // namespace nibble
