// What a command line asks for, as data: what a result's metadata says of how it was made, and what a job is known by.
#pragma once
#include <set>
#include <string>

#include "base/json.h"

namespace CLI {
class App;
}

namespace nibble::cli {

/// The command's options that were given, by their long name without dashes, as strings (lists: arrays); in the order
/// in which the command declares them. Not those named in `leave_out`, nor positional arguments.
Json recipe_of(const CLI::App& command, const std::set<std::string>& leave_out);

}  // namespace nibble::cli
