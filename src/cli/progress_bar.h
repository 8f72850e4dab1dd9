// Draws library progress as one line on stderr, with the time left, and only when stderr is a terminal.
#pragma once
#include <memory>

#include "base/progress.h"

namespace nibble::cli {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();  ///< wipes the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// What to hand to the library; valid as long as this object. Empty when stderr is no terminal.
  ProgressCallback callback();
  /// Wipes the line, so that something else can be printed; the next call draws it again.
  void clear();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble::cli
