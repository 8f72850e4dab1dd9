#include "checkpoint/side_files.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/file.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kMaxSideFile = 256'000'000;

/// The one subfolder that Transformers writes beside the weights.
constexpr const char* kTemplates = "additional_chat_templates";

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_side_file(const std::string& name) {
  static constexpr std::array<std::string_view, 7> extensions{".json",     ".txt", ".model", ".jinja",
                                                              ".tiktoken", ".md",  ".py"};
  static constexpr std::array<std::string_view, 4> others{"LICENSE", "LICENCE", "NOTICE", "USE_POLICY"};
  if (name == "config.json" || name.front() == '.' || ends_with(name, ".index.json")) return false;
  const auto ends = [&](std::string_view end) { return ends_with(name, end); };
  return std::any_of(extensions.begin(), extensions.end(), ends) ||
         std::find(others.begin(), others.end(), name) != others.end();
}

void read_into(std::vector<SideFile>& files, const fs::path& root, const std::string& prefix) {
  std::error_code error;
  fs::directory_iterator entries(root / prefix, error);
  if (error) return;
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (!is_side_file(name) || !entry.is_regular_file(error) || error) continue;
    if (static_cast<std::int64_t>(entry.file_size(error)) > kMaxSideFile || error) continue;
    if (!lies_within(entry.path(), root)) {
      throw bad_input(entry.path().string(), ": a link that leads out of the model's folder");
    }
    files.push_back({prefix + name, read_file(entry.path(), kMaxSideFile)});
  }
}

}  // namespace

bool lies_within(const fs::path& file, const fs::path& folder) {
  std::error_code error;
  const fs::path real = fs::canonical(file, error);
  if (error) return false;
  const fs::path root = fs::canonical(folder.empty() ? fs::path(".") : folder, error);
  if (error) return false;
  const fs::path blobs = real.parent_path();
  if (blobs.filename() == "blobs" && blobs.parent_path().filename().string().substr(0, 8) == "models--") return true;
  return std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end();
}

std::vector<SideFile> read_side_files(const fs::path& folder) {
  std::vector<SideFile> files;
  read_into(files, folder, "");
  read_into(files, folder, std::string(kTemplates) + "/");
  std::sort(files.begin(), files.end(), [](const SideFile& a, const SideFile& b) { return a.name < b.name; });
  return files;
}

void add_side_files(CheckpointWriter& writer, const Checkpoint& source, const Json& config) {
  for (SideFile& file : read_side_files(source.folder())) {
    const bool replaced = source.files().count(file.name) != 0;
    if (!replaced) writer.add_file(file.name, std::move(file.content));
  }
  for (const auto& [name, content] : source.files()) writer.add_file(name, content);
  if (!config.is_null()) writer.add_file("config.json", config.dump(2) + "\n");
}

void refuse_same_folder(const fs::path& output, const fs::path& input) {
  std::error_code error;
  if (fs::equivalent(output, input, error)) {
    throw bad_input(output.string(), ": the output folder is the input folder");
  }
}

}  // namespace nibble
