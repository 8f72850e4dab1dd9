// How long work tells its caller how far it is. The library only calls back; the command line draws
// (src/cli/progress_bar.h).
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

namespace nibble {

struct Progress {
  std::string_view task;   ///< what is being done, for example "quantizing"
  std::string_view item;   ///< the part in hand, for example a tensor's name
  std::int64_t done = 0;   ///< units finished
  std::int64_t total = 0;  ///< units in all; 0 when not known
  std::int64_t found = 0;  ///< units among `done` that took no time: an earlier run's
};

/// May be empty. Called from the thread that called the library, never from workers.
using ProgressCallback = std::function<void(const Progress&)>;

/// Warnings and notes for the user, one line each. May be empty.
using NoteCallback = std::function<void(std::string_view)>;

}  // namespace nibble
