// Checks what clang-format cannot: file and function length, the order of layers, and a few habits. Run by the tests:
//   check_style SOURCE_DIR      prints one line per finding, exit code 1 when there is any
// A function or file with "nibble:long" in a comment of its first lines is exempt (unrolled kernels) and listed with
// --list-long.
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxFileLines = 600;
constexpr std::size_t kMaxFunctionLines = 60;

// Lowest first, as in CMakeLists.txt: a layer may include only itself and those before it, except that text stands on
// base alone.
constexpr std::array<std::string_view, 13> kLayers{"base", "tensor", "device", "layout", "checkpoint", "quant", "text",
                                                   "nn",   "models", "run",    "calib",  "api",        "cli"};

struct Report {
  int findings = 0;
  bool list_long = false;
  void add(const fs::path& file, std::size_t line, const std::string& text) {
    std::cout << file.string() << ':' << line << ": " << text << '\n';
    ++findings;
  }
};

std::vector<std::string> read_lines(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

int layer_index(std::string_view name) {
  const auto found = std::find(kLayers.begin(), kLayers.end(), name);
  return found == kLayers.end() ? -1 : static_cast<int>(found - kLayers.begin());
}

bool may_include(std::string_view from, std::string_view what) {
  const int a = layer_index(from), b = layer_index(what);
  if (a < 0 || b < 0 || from == what) return true;
  if (from == "text") return what == "base";
  if (from == "checkpoint") return what == "base" || what == "tensor";
  return b < a && !(what == "text" && a < layer_index("run"));
}

/// A source line without comments, string and character literals (`in_block` carries /* */ over lines): what braces are
/// counted in.
std::string code_of(const std::string& line, bool& in_block) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (in_block) {
      if (line.compare(i, 2, "*/") == 0) in_block = false, ++i;
      continue;
    }
    if (line.compare(i, 2, "//") == 0) break;
    if (line.compare(i, 2, "/*") == 0) {
      in_block = true;
      ++i;
      continue;
    }
    const char c = line[i];
    const bool digit_separator = c == '\'' && i > 0 && std::isalnum(static_cast<unsigned char>(line[i - 1]));
    if ((c == '"' || c == '\'') && !digit_separator) {
      for (++i; i < line.size() && line[i] != c; ++i) {
        if (line[i] == '\\') ++i;
      }
      out += "\"\"";
      continue;
    }
    out += c;
  }
  return out;
}

bool blank(const std::string& text) { return text.find_first_not_of(" \t") == std::string::npos; }

/// Whether the text before a brace opens a function body (not a namespace, type, initializer or control statement).
bool opens_function(const std::string& head) {
  static const std::regex not_function(R"(\b(namespace|class|struct|union|enum|extern|concept)\b|=\s*$|^\s*$)");
  static const std::regex looks_like(R"(\)\s*(const|noexcept|override|final|mutable|->\s*[\w:<>,&* ]+|:\s*.*)*\s*$)");
  return !std::regex_search(head, not_function) && std::regex_search(head, looks_like);
}

/// Finds functions by their braces: the first block below namespaces and types whose head looks like a function's.
class FunctionChecker {
 public:
  FunctionChecker(const fs::path& file, Report& report) : file_(file), report_(report) {}

  void line(const std::string& raw, std::size_t number) {
    const std::string code = code_of(raw, in_block_);
    if (raw.find("nibble:long") != std::string::npos) exempt_ = true;
    if (!code.empty() && code[0] == '#') return;
    if (function_depth_ >= 0 && !blank(code)) ++code_lines_;
    for (const char c : code) step(c, number);
    head_ += ' ';
  }

 private:
  void step(char c, std::size_t number) {
    if (c == '{') {
      if (function_depth_ < 0 && opens_function(head_)) {
        function_depth_ = depth_;
        start_ = number;
        code_lines_ = 1;
      }
      ++depth_;
      head_.clear();
    } else if (c == '}') {
      --depth_;
      if (depth_ == function_depth_) finish();
      head_.clear();
    } else if (c == ';') {
      head_.clear();
    } else {
      head_ += c;
    }
  }

  void finish() {
    if (code_lines_ > kMaxFunctionLines && !exempt_) {
      report_.add(
          file_, start_,
          "function of " + std::to_string(code_lines_) + " code lines, more than " + std::to_string(kMaxFunctionLines));
    }
    if (exempt_ && report_.list_long)
      std::cout << file_.string() << ':' << start_ << ": " << code_lines_ << " lines (nibble:long)\n";
    function_depth_ = -1;
    exempt_ = false;
  }

  const fs::path& file_;
  Report& report_;
  std::string head_;
  int depth_ = 0, function_depth_ = -1;
  std::size_t start_ = 0, code_lines_ = 0;
  bool in_block_ = false, exempt_ = false;
};

void check_includes(const fs::path& file, const std::string& layer, const std::vector<std::string>& lines,
                    Report& report) {
  static const std::regex include(R"re(^#include "(\w+)/[^"]*")re");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::smatch match;
    if (std::regex_search(lines[i], match, include) && !may_include(layer, match[1].str())) {
      report.add(file, i + 1, "layer " + layer + " must not use layer " + match[1].str());
    }
  }
}

void check_habits(const fs::path& file, const std::vector<std::string>& lines, Report& report) {
  static const std::regex macro(
      R"(^#define (?!HWY_TARGET_INCLUDE|HWY_DISABLED_TARGETS|NIBBLE_\w+_INL_H$|NIBBLE_UNROLL\b|NIBBLE_(LAYOUT|SCHEME|ARCH|COMMAND|FAMILY)\b))");
  static const std::regex abort_call(R"(\b(abort|assert|exit)\()");
  const bool library =
      file.string().find("/src/") != std::string::npos && file.string().find("_test.cc") == std::string::npos;
  const bool command_line = file.string().find("/src/cli/") != std::string::npos;
  bool in_block = false;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string code = code_of(lines[i], in_block);
    if (!library) continue;
    if (std::regex_search(code, macro)) report.add(file, i + 1, "macro: use a template or constexpr");
    if (code.find("using namespace") != std::string::npos) report.add(file, i + 1, "using namespace");
    if (std::regex_search(code, abort_call) && code.find("_exit(") == std::string::npos && !command_line) {
      report.add(file, i + 1, "the library must not end the process");
    }
    if (!command_line && (code.find("std::cout") != std::string::npos || code.find("std::cerr") != std::string::npos)) {
      report.add(file, i + 1, "the library must not print");
    }
  }
  const bool header = file.extension() == ".h";
  const bool once = std::any_of(lines.begin(), lines.end(), [](const std::string& l) {
    return l == "#pragma once" || l.find("HWY_TARGET_TOGGLE") != std::string::npos;
  });
  if (header && !once) report.add(file, 1, "header without #pragma once");
}

void check_file(const fs::path& file, const fs::path& root, Report& report) {
  const std::vector<std::string> lines = read_lines(file);
  if (lines.size() > kMaxFileLines) {
    report.add(file, lines.size(),
               "file of " + std::to_string(lines.size()) + " lines, more than " + std::to_string(kMaxFileLines));
  }
  const fs::path relative = fs::relative(file, root);
  auto part = relative.begin();
  if (*part == "src" && std::distance(relative.begin(), relative.end()) > 2) {
    check_includes(file, std::next(part)->string(), lines, report);
  }
  check_habits(file, lines, report);
  FunctionChecker functions(file, report);
  for (std::size_t i = 0; i < lines.size(); ++i) functions.line(lines[i], i + 1);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  Report report;
  report.list_long = std::find(args.begin(), args.end(), "--list-long") != args.end();
  if (args.empty()) {
    std::cerr << "usage: check_style SOURCE_DIR [--list-long]\n";
    return 2;
  }
  const fs::path root = fs::canonical(args[0]);
  std::set<fs::path> files;
  for (const char* folder : {"src", "include", "bench", "tests", "tools", "examples"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (entry.is_regular_file() && (extension == ".cc" || extension == ".h")) files.insert(entry.path());
    }
  }
  for (const fs::path& file : files) check_file(file, root, report);
  std::cout << files.size() << " files, " << report.findings << " findings\n";
  return report.findings == 0 ? 0 : 1;
}
