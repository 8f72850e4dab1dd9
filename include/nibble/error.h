// The one error type of nibble, thrown by every call that meets a wrong file, a wrong argument, or a failing machine.
#pragma once
#include <stdexcept>
#include <string>

namespace nibble {

/// What kind of trouble; the command line maps it to its exit code.
enum class ErrorKind {
  bad_input,  ///< a file, flag or request is wrong: exit code 2
  runtime,    ///< the machine failed us (disk full, out of memory, ...): exit code 1
  internal,   ///< a bug in nibble: exit code 1
};

/// what() is one line that names the file, the tensor or field, and the reason.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  /// 2 for bad input, 1 for the rest.
  int exit_code() const { return kind_ == ErrorKind::bad_input ? 2 : 1; }

 private:
  ErrorKind kind_;
};

}  // namespace nibble
