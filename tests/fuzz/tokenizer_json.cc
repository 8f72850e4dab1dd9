// tokenizer.json of any bytes opens or is one error line; what opens encodes any text or says why not, and streaming
// decode gives what decode gives. Input: the JSON, then optionally a NUL byte and the text.
#include <string_view>

#include "base/json.h"
#include "base/utf8.h"
#include "fuzz/fuzz_file.h"
#include "text/pipeline_tokenizer.h"

namespace {

void run(std::string_view json, std::string_view text) {
  const auto tokenizer = nibble::text::read_tokenizer_json(nibble::Json::parse(json, "fuzz"), "fuzz", {});
  const auto ids = tokenizer->encode(text);
  const std::string whole = tokenizer->decode(ids);
  nibble::StreamDecoder stream(tokenizer, false);
  std::string joined;
  for (const auto id : ids) {
    const std::string piece = stream.push(id);
    nibble::check(nibble::utf8_valid(piece), "a piece splits a character");
    joined += piece;
  }
  nibble::check(joined + stream.finish() == whole, "stream and decode differ");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return nibble::fuzz::expect_answer([&] {
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    const std::size_t cut = all.find('\0');
    if (cut == std::string_view::npos) return run(all, "a b\n\xc3\xa9 <s>123's  \xe6\x97\xa5\xe2\x96\x81x");
    run(all.substr(0, cut), all.substr(cut + 1));
  });
}
