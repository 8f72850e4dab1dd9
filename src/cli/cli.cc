#include "cli/cli.h"

#include <CLI/CLI.hpp>

#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/commands.h"

namespace nibble::cli {
namespace {

/// A file that shrinks while it is mapped raises SIGBUS on the next read; say so in one line instead of dumping core.
void on_bus_error(int) {
  static constexpr char text[] = "nibble: error: a mapped file became shorter (or unreadable) while it was in use\n";
  const ssize_t ignored = ::write(STDERR_FILENO, text, sizeof text - 1);
  static_cast<void>(ignored);
  ::_exit(2);
}

int report(const std::string& message, int code) {
  std::cout.flush();
  std::cerr << "nibble: error: " << message << '\n';
  return code;
}

/// Spellings that users bring from llama.cpp and that a parser of one-letter flags would take apart.
std::vector<std::string> arguments_of(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  std::replace(arguments.begin(), arguments.end(), std::string("-pg"), std::string("--pg"));
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  return arguments;
}

}  // namespace

int run(int argc, char** argv) {
  std::signal(SIGBUS, on_bus_error);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a file over the size limit is a write error like any other
  CLI::App app("Quantize, evaluate, run and convert Hugging Face checkpoints, natively.", "nibble");
  app.require_subcommand(0, 1);
  app.set_help_all_flag("--help-all", "Help of every command");
  add_version_flag(app);
#define NIBBLE_COMMAND(name) add_##name(app);
#include "cli/commands.def"
#undef NIBBLE_COMMAND
  try {
    app.parse(arguments_of(argc, argv));
    if (app.get_subcommands().empty()) {
      std::cout << app.help();
      return argc > 1 ? 0 : 2;
    }
    std::cout.flush();
    if (!std::cout) return report("cannot write to standard output", 1);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const Error& error) {
    return report(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return report("out of memory", 1);
  } catch (const std::exception& error) {
    return report(error.what(), 1);
  }
}

}  // namespace nibble::cli
