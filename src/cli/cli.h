// The command line program, callable from tests. Each command is one file with a function `add_<command>(CLI::App&)`
// listed in commands.def; it declares flags and sets a callback that does the work.
#pragma once

namespace nibble::cli {

/// Runs `nibble argv[1..]`; returns the exit code: 0 done, 1 runtime failure, 2 bad input or usage. Errors are one line
/// on stderr.
int run(int argc, char** argv);

}  // namespace nibble::cli
