#include "text/tokenizer.h"

#include "base/error.h"
#include "text/other_formats.h"

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
  if (!is_there(folder_or_file)) throw bad_input(folder_or_file.string(), ": no such file or folder");
  const bool folder = std::filesystem::is_directory(folder_or_file, ignored);
  const std::filesystem::path home = folder ? folder_or_file : folder_or_file.parent_path();
  const text::TokenizerConfig config = text::read_tokenizer_config(home);
  const auto read_json = [&](const std::filesystem::path& file) {
    return text::read_tokenizer_json(Json::read(file, kMaxTokenizerBytes), file.string(), config);
  };
  if (!folder) {
    return folder_or_file.extension() == ".json" ? read_json(folder_or_file)
                                                 : text::read_sentencepiece(folder_or_file, config);
  }
  if (is_there(home / "tokenizer.json")) return read_json(home / "tokenizer.json");
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (is_there(home / name)) return text::read_sentencepiece(home / name, config);
  }
  if (is_there(home / "vocab.json") && is_there(home / "merges.txt")) {
    return text::read_vocab_and_merges(home / "vocab.json", home / "merges.txt", config);
  }
  throw bad_input(home.string(),
                  ": no tokenizer here (tokenizer.json, tokenizer.model, or vocab.json with merges.txt)");
}

}  // namespace nibble
