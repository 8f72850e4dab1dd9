// nibble tokenize, nibble detokenize: text to ids and back, as Transformers does it.
#include <CLI/CLI.hpp>

#include <cstdint>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "text/tokenizer.h"

namespace nibble::cli {
namespace {

struct TokenizeFlags {
  std::string model, file, prompt;
  bool have_prompt = false, no_special = false, no_parse_special = false, json = false, ids = false, count = false;
};

struct DetokenizeFlags {
  std::string model, file;
  std::vector<std::string> ids;
  bool skip_special = false;
};

std::string read_standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

/// The text of a file ("-": standard input), checked here so that a message can name the file.
std::string read_input(const std::string& file) {
  const bool standard = file.empty() || file == "-";
  std::string text = standard ? read_standard_input() : read_file(file);
  if (const std::size_t bad = utf8_first_invalid(text); bad != text.size()) {
    throw bad_input(standard ? "standard input" : file, ": not valid UTF-8 at byte ", bad);
  }
  return text;
}

void print_ids(const std::vector<std::int32_t>& ids, const char* open, const char* separator, const char* close) {
  std::string out = open;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += separator;
    out += std::to_string(ids[i]);
  }
  std::cout << out << close << '\n';
}

void tokenize(const TokenizeFlags& flags) {
  const auto tokenizer = Tokenizer::open(flags.model);
  const std::string text = flags.have_prompt ? flags.prompt : read_input(flags.file);
  const std::vector<std::int32_t> ids =
      tokenizer->encode(text, {.add_special = !flags.no_special, .parse_special = !flags.no_parse_special});
  if (flags.count) {
    std::cout << ids.size() << '\n';
  } else if (flags.json) {
    print_ids(ids, "{\"ids\": [", ", ", "]}");
  } else if (flags.ids) {
    print_ids(ids, "", " ", "");
  } else {
    for (const std::int32_t id : ids) {
      std::cout << id << '\t' << printable(tokenizer->id_to_token(id).value_or("")) << '\n';
    }
  }
}

std::int32_t checked_id(std::int64_t id, const std::string& where) {
  if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) throw bad_input(where, ": id ", id, " is out of range");
  return static_cast<std::int32_t>(id);
}

/// {"ids": [...]}, {"ids": [[...], ...]}, [...] or numbers with white space or commas between them.
std::vector<std::int32_t> parse_ids(const std::string& text, const std::string& where) {
  std::vector<std::int32_t> ids;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && (text[first] == '{' || text[first] == '[')) {
    const Json json = Json::parse(text, where);
    const Json* list = json.is_object() ? json.get("ids") : &json;
    if (list == nullptr) throw bad_input(where, ": no member \"ids\"");
    for (const Json& item : list->array(where)) {
      if (!item.is_array()) {
        ids.push_back(checked_id(item.integer(where), where));
        continue;
      }
      for (const Json& id : item.array(where)) ids.push_back(checked_id(id.integer(where), where));
    }
    return ids;
  }
  static constexpr char between[] = " \t\r\n,";
  for (std::size_t at = text.find_first_not_of(between); at != std::string::npos;) {
    const std::size_t end = std::min(text.find_first_of(between, at), text.size());
    const std::string word = text.substr(at, end - at);
    if (word.size() > 10 || word.find_first_not_of("0123456789") != std::string::npos) {
      throw bad_input(where, ": \"", printable(word, 40), "\" is not an id");
    }
    ids.push_back(checked_id(std::stoll(word), where));
    at = text.find_first_not_of(between, end);
  }
  return ids;
}

void detokenize(const DetokenizeFlags& flags) {
  const auto tokenizer = Tokenizer::open(flags.model);
  std::vector<std::int32_t> ids;
  for (const std::string& word : flags.ids) {
    for (const std::int32_t id : parse_ids(word, "ids")) ids.push_back(id);
  }
  if (flags.ids.empty()) {
    const bool standard = flags.file.empty() || flags.file == "-";
    ids = parse_ids(read_input(flags.file), standard ? "standard input" : flags.file);
  }
  std::cout << tokenizer->decode(ids, flags.skip_special);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  const auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand("tokenize", "Print the token ids of a text");
  command->add_option("model", flags->model, "Model folder, tokenizer.json or tokenizer.model")->required();
  command->add_option("-f,--file", flags->file, "Read the text from FILE (default and \"-\": standard input)");
  CLI::Option* prompt = command->add_option("-p,--prompt", flags->prompt, "The text itself");
  prompt->excludes("--file");
  command->add_flag("--no-special,--no-bos", flags->no_special, "Do not add BOS, EOS and the like");
  command->add_flag("--no-parse-special", flags->no_parse_special, "Treat special tokens in the text as plain text");
  command->add_flag("--json", flags->json, "Print {\"ids\": [...]}");
  command->add_flag("--ids", flags->ids, "Print only the ids, on one line");
  command->add_flag("--show-count,--count", flags->count, "Print only the number of tokens");
  command->footer(
      "Examples:\n"
      "  nibble tokenize MODEL -p \"Hello world\"\n"
      "  nibble tokenize MODEL -f book.txt --json > ids.json\n"
      "  echo -n \"Hello\" | nibble tokenize MODEL --ids --no-special");
  command->callback([flags, prompt] {
    flags->have_prompt = prompt->count() > 0;
    tokenize(*flags);
  });
}

void add_detokenize(CLI::App& app) {
  const auto flags = std::make_shared<DetokenizeFlags>();
  CLI::App* command = app.add_subcommand("detokenize", "Print the text of token ids");
  command->add_option("model", flags->model, "Model folder, tokenizer.json or tokenizer.model")->required();
  CLI::Option* file = command->add_option("-f,--file,--ids-file", flags->file,
                                          "Read ids from FILE: {\"ids\": [...]}, [...] or plain numbers "
                                          "(default and \"-\": standard input)");
  command->add_option("ids", flags->ids, "The ids themselves")->excludes(file);
  command->add_flag("--skip-special", flags->skip_special, "Leave special tokens out");
  command->footer(
      "Examples:\n"
      "  nibble detokenize MODEL 9906 1917\n"
      "  nibble tokenize MODEL -f book.txt --json | nibble detokenize MODEL");
  command->callback([flags] { detokenize(*flags); });
}

}  // namespace nibble::cli
