// Declarations of all commands (see commands.def).
#pragma once

namespace CLI {
class App;
}

namespace nibble::cli {

/// `nibble --version`: version, CPU features in use, targets.
void add_version_flag(CLI::App& app);

#define NIBBLE_COMMAND(name) void add_##name(CLI::App& app);
#include "cli/commands.def"
#undef NIBBLE_COMMAND

}  // namespace nibble::cli
