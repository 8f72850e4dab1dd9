// JSON of any bytes parses or is one error line; what parses survives being written and read again.
#include <cmath>
#include <string_view>

#include "base/json.h"
#include "fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return nibble::fuzz::expect_answer([&] {
    const nibble::Json json = nibble::Json::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    for (const int indent : {0, 2}) {
      for (const bool ascii : {false, true}) {
        const nibble::Json again = nibble::Json::parse(json.dump(indent, ascii), "again");
        nibble::check(again == json, "JSON round trip");
      }
    }
  });
}
