// Which linears get the same input (q, k, v; gate, up), as a Tap finds out: the first of them leads, and one set of
// statistics serves all.
#pragma once
#include <map>
#include <string>
#include <string_view>

namespace nibble {

class SharedInputs {
 public:
  /// A linear has seen its input at `x`. Gives the module that leads, which is this one when the input is another than
  /// that of the linear before. Who leads is settled when a linear comes for the first time: passes may end between an
  /// input and its output, and the next may have other values in the same place.
  const std::string& input(std::string_view module, const float* x);
  /// The next input is a new one.
  void output() { last_ = nullptr; }
  /// nullptr for a linear that has not come.
  const std::string* leader_of(std::string_view module) const;

 private:
  std::map<std::string, std::string, std::less<>> leader_of_;
  const float* last_ = nullptr;  ///< the input of the linear before, until its output
  std::string leader_;           ///< of that linear
};

}  // namespace nibble
