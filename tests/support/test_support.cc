#include "support/test_support.h"

#include <sys/wait.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace nibble::test {
namespace fs = std::filesystem;

fs::path source(const std::string& relative) { return fs::path(NIBBLE_SOURCE_DIR) / relative; }
fs::path data(const std::string& relative) { return source("tests/data") / relative; }
fs::path nibble_binary() { return NIBBLE_BINARY; }

fs::path shared(const std::string& relative) {
  const char* set = std::getenv("NIBBLE_SHARED");
  const fs::path root = set != nullptr ? fs::path(set) : fs::path(NIBBLE_SOURCE_DIR).parent_path() / "shared";
  const fs::path path = root / relative;
  return fs::exists(path) ? path : fs::path();
}

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "nibble-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string read_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + file.string());
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void write_text(const fs::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  out << text;
  if (!out) throw std::runtime_error("cannot write " + file.string());
}

std::map<std::string, std::string> files_of_result(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != "quantize.jsonl") files[name] = read_text(entry.path());
  }
  return files;
}

Ran run_command(const std::string& command) {
  TempDir dir;
  const std::string line = "(" + command + ") >'" + (dir / "out").string() + "' 2>'" + (dir / "err").string() + "'";
  const int status = std::system(line.c_str());
  Ran ran;
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ran.out = read_text(dir / "out");
  ran.err = read_text(dir / "err");
  return ran;
}

double relative_error(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return largest == 0 ? worst : worst / largest;
}

}  // namespace nibble::test
