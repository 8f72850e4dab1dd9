// What tests of every layer share: where test data lies, temporary folders, comparing arrays.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace nibble::test {

/// A file or folder below tests/data in the source tree.
std::filesystem::path data(const std::string& relative);

/// A file or folder of the repository, for example "models/demo".
std::filesystem::path source(const std::string& relative);

/// The built command line program.
std::filesystem::path nibble_binary();

/// ../shared/<relative> beside the repository if it is there (or under $NIBBLE_SHARED), else an empty path: such tests
/// skip and say why.
std::filesystem::path shared(const std::string& relative);

/// A folder that is removed with everything in it when the object goes.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& file);
void write_text(const std::filesystem::path& file, const std::string& text);

/// The files of a quantized model by name but for quantize.jsonl, which says how long things took.
std::map<std::string, std::string> files_of_result(const std::filesystem::path& folder);

/// What a finished program left: exit code (128 + signal when killed), standard output and standard error.
struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

/// Runs a shell command line, waits for it.
Ran run_command(const std::string& command);

/// max |a - b| / max |b|: the relative error of a whole array; infinity when the sizes differ or a value is not finite.
double relative_error(std::span<const float> a, std::span<const float> b);

}  // namespace nibble::test

#define NIBBLE_NEED_SHARED(variable, relative)                             \
  const std::filesystem::path variable = ::nibble::test::shared(relative); \
  if (variable.empty()) GTEST_SKIP() << "needs ../shared/" << (relative) << ", which is not here"
