// Finding a model by name in the Hugging Face cache:
//   <hub>/models--<org>--<name>/{refs/<revision>, snapshots/<commit>/<file> -> ../../blobs/<hash>}
// (huggingface/hub-docs, "local cache", written as a reference for other languages).
#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

/// The variable's value; "" when it is unset or empty.
std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path expand_home(const std::string& path) {
  if (path == "~" || path.substr(0, 2) == "~/") return variable("HOME") + path.substr(1);
  return path;
}

/// The first that is set wins, as in the Python library.
fs::path hub_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string value = variable(name); !value.empty()) return expand_home(value);
  }
  if (const std::string home = variable("HF_HOME"); !home.empty()) return expand_home(home) / "hub";
  const std::string cache = variable("XDG_CACHE_HOME");
  return (cache.empty() ? expand_home("~/.cache") : expand_home(cache)) / "huggingface" / "hub";
}

/// One part of a repository's name: letters, digits, and . _ - but nothing that could leave the folder.
bool valid_name_part(std::string_view part) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; };
  return !part.empty() && part.size() <= 96 && part.find("..") == std::string_view::npos &&
         part.find("--") == std::string_view::npos && std::all_of(part.begin(), part.end(), plain) && part != ".";
}

bool is_commit(std::string_view text) {
  return text.size() == 40 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

/// A branch, tag or "refs/pr/1": relative, without ".." parts.
bool valid_revision(const std::string& revision) {
  const fs::path path(revision);
  if (revision.empty() || path.is_absolute() || revision.find('\0') != std::string::npos) return false;
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".." || part == "."; });
}

struct RepoName {
  std::string folder;  ///< "models--org--name"
  std::string revision;
};

/// Whether `model` reads as `org/name[@revision]` or `name[@revision]`.
bool parse_repo_name(const std::string& model, RepoName& out) {
  const std::size_t at = model.find('@');
  const std::string name = model.substr(0, at);
  out.revision = at == std::string::npos ? "main" : model.substr(at + 1);
  const std::size_t slash = name.find('/');
  out.folder = "models--";
  if (slash != std::string::npos) {
    if (!valid_name_part(name.substr(0, slash))) return false;
    out.folder += name.substr(0, slash) + "--";
  }
  const std::string last = slash == std::string::npos ? name : name.substr(slash + 1);
  out.folder += last;
  return valid_name_part(last);
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.pop_back();
  return text;
}

}  // namespace

fs::path resolve_model(const std::string& model) {
  if (model.empty()) throw bad_input("the model's name is empty");
  if (model.find('\0') != std::string::npos) throw bad_input(printable(model), ": a name with a zero byte");
  std::error_code error;
  if (fs::exists(model, error)) return model;
  RepoName repo;
  if (!parse_repo_name(model, repo)) throw bad_input(printable(model), ": no such file or folder");
  if (!valid_revision(repo.revision)) {
    throw bad_input(printable(model), ": \"", printable(repo.revision), "\" is not a revision");
  }
  const fs::path folder = hub_folder() / repo.folder;
  const std::string searched = "no such file or folder, and not in the Hugging Face cache: ";
  if (!fs::is_directory(folder, error)) {
    throw bad_input(printable(model), ": ", searched, "searched ", folder.string());
  }
  std::string commit = repo.revision;
  if (!is_commit(commit)) {
    const fs::path ref = folder / "refs" / repo.revision;
    if (!fs::is_regular_file(ref, error)) {
      throw bad_input(printable(model), ": ", searched, "searched ", ref.string());
    }
    commit = trimmed(read_file(ref, 4096));
    if (!is_commit(commit)) throw bad_input(ref.string(), ": does not hold a commit of 40 hexadecimal digits");
  }
  const fs::path snapshot = folder / "snapshots" / commit;
  if (!fs::is_directory(snapshot, error)) {
    throw bad_input(printable(model), ": ", searched, "searched ", snapshot.string());
  }
  return snapshot;
}

}  // namespace nibble
