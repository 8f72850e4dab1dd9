#include "text/tokenizer.h"

#include "base/error.h"
#include "text/pipeline_tokenizer.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxTokenizerBytes = std::int64_t{2} << 30;

bool is_there(const std::filesystem::path& file) {
  std::error_code ignored;
  return std::filesystem::exists(file, ignored);
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::open(const std::filesystem::path& folder_or_file) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(folder_or_file, ignored);
  if (!folder && !is_there(folder_or_file)) throw bad_input(folder_or_file.string(), ": no such file or folder");
  const std::filesystem::path home = folder ? folder_or_file : folder_or_file.parent_path();
  const std::filesystem::path json = folder ? home / "tokenizer.json" : folder_or_file;
  const text::TokenizerConfig config = text::read_tokenizer_config(home);
  if (is_there(json)) return text::read_tokenizer_json(Json::read(json, kMaxTokenizerBytes), json.string(), config);
  throw bad_input(home.string(), ": no tokenizer.json");
}

}  // namespace nibble
