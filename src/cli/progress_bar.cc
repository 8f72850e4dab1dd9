#include "cli/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "base/process_memory.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::int64_t kBarWidth = 24;

std::size_t terminal_width() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

std::string clock_text(double seconds) {
  const auto whole = static_cast<long long>(seconds + 0.5);
  char text[32];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  }
  return text;
}

std::string line_of(const Progress& progress, double elapsed) {
  std::string line(progress.task);
  if (progress.total > 0) {
    const std::int64_t done = std::clamp<std::int64_t>(progress.done, 0, progress.total);
    const std::int64_t filled = done * kBarWidth / progress.total;
    line += " [" + std::string(static_cast<std::size_t>(filled), '#') +
            std::string(static_cast<std::size_t>(kBarWidth - filled), ' ') + "] " + std::to_string(done) + "/" +
            std::to_string(progress.total);
    // What an earlier run did says nothing about how fast this one is.
    const std::int64_t now = done - progress.found;
    if (now > 0 && done < progress.total) {
      line +=
          "  " + clock_text(elapsed * static_cast<double>(progress.total - done) / static_cast<double>(now)) + " left";
    }
  } else if (progress.done > 0) {
    line += " " + std::to_string(progress.done);
  }
  if (!progress.item.empty()) line += "  " + std::string(progress.item);
  if (const std::int64_t held = resident_bytes(); held > 0) line += "  " + byte_text(static_cast<double>(held));
  return line;
}

}  // namespace

struct ProgressBar::State {
  bool terminal = ::isatty(STDERR_FILENO) == 1;
  bool drawn = false;
  std::string task;
  std::int64_t found = 0;
  Clock::time_point started;
  Clock::time_point last;

  void update(const Progress& progress) {
    const auto now = Clock::now();
    const bool fresh = progress.task != task;
    if (fresh || progress.found != found) {
      task = progress.task;
      found = progress.found;
      started = now;
    }
    if (!fresh && now - last < kRedraw) return;
    last = now;
    std::string line = line_of(progress, std::chrono::duration<double>(now - started).count());
    if (const std::size_t width = terminal_width() - 1; line.size() > width) line.resize(width);
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
    drawn = true;
  }
};

ProgressBar::ProgressBar() : state_(std::make_unique<State>()) {}
ProgressBar::~ProgressBar() { clear(); }

ProgressCallback ProgressBar::callback() {
  if (!state_->terminal) return {};
  return [state = state_.get()](const Progress& progress) { state->update(progress); };
}

void ProgressBar::clear() {
  if (!state_->drawn) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  state_->drawn = false;
}

}  // namespace nibble::cli
