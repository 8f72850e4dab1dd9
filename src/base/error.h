// The one error family of the library. Everything that can go wrong because of input, files or the machine is thrown as
// nibble::Error with a text that names the file, the tensor or field, and the reason. The library never prints or
// aborts.
#pragma once
#include <sstream>
#include <string>
#include <string_view>

#include "nibble/error.h"

namespace nibble {

/// All arguments written one after the other, as `<<` writes them.
template <class... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// `throw bad_input(file, ": tensor ", name, ": ", reason);`
template <class... Args>
Error bad_input(const Args&... args) {
  return {ErrorKind::bad_input, cat(args...)};
}

/// `throw runtime_failure("cannot write ", file, ": ", errno_text());`
template <class... Args>
Error runtime_failure(const Args&... args) {
  return {ErrorKind::runtime, cat(args...)};
}

/// The text of the current errno, for example "No space left on device".
std::string errno_text();

/// A text from outside made fit for one line of a message: control bytes and invalid UTF-8 escaped as \xNN, cut at
/// `limit` bytes.
std::string printable(std::string_view text, std::size_t limit = 200);

/// Always-on check of what only a bug in nibble could break; throws ErrorKind::internal.
void check(bool holds, const char* what);

}  // namespace nibble
