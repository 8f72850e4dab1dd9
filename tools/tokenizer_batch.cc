// Answers many tokenizer questions in one process, for tools/tokenizer_differential.py:
//   tokenizer_batch FOLDER < questions.jsonl
// A question is {"text": ..., "special": bool}; the answer is one line {"ids", "text", "text_skip", "stream"} or
// {"error"}.
#include <iostream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace {

std::string stream(const std::shared_ptr<const nibble::Tokenizer>& tokenizer, const std::vector<std::int32_t>& ids) {
  nibble::StreamDecoder decoder(tokenizer, false);
  std::string text;
  for (const std::int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

nibble::Json answer(const std::shared_ptr<const nibble::Tokenizer>& tokenizer, const nibble::Json& question) {
  nibble::Json out;
  try {
    const bool special = question.find("special")->boolean("special");
    const auto ids = tokenizer->encode(question.find("text")->string("text"), {.add_special = special});
    nibble::Json::Array list;
    for (const std::int32_t id : ids) list.push_back(static_cast<std::int64_t>(id));
    out.set("ids", std::move(list));
    out.set("text", tokenizer->decode(ids, false));
    out.set("text_skip", tokenizer->decode(ids, true));
    out.set("stream", stream(tokenizer, ids));
  } catch (const nibble::Error& error) {
    out = nibble::Json(nibble::Json::Object());
    out.set("error", std::string(error.what()));
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenizer_batch FOLDER < questions.jsonl\n";
    return 2;
  }
  try {
    const auto tokenizer = nibble::Tokenizer::open(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      std::cout << answer(tokenizer, nibble::Json::parse(line, "question")).dump() << '\n';
    }
  } catch (const nibble::Error& error) {
    std::cerr << error.what() << '\n';
    return error.exit_code();
  }
  return 0;
}
