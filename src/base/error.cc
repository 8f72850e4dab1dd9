#include "base/error.h"

#include <cerrno>
#include <cstring>

#include "base/utf8.h"

namespace nibble {

std::string errno_text() { return std::strerror(errno); }

std::string printable(std::string_view text, std::size_t limit) {
  static constexpr char hex[] = "0123456789abcdef";
  std::string out;
  std::size_t at = 0;
  while (at < text.size() && out.size() < limit) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const std::size_t length = utf8_length(text.substr(at));
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
      at += 1;
    } else {
      out.append(text.substr(at, length));
      at += length;
    }
  }
  if (at < text.size()) out += "...";
  return out;
}

void check(bool holds, const char* what) {
  if (!holds) throw Error(ErrorKind::internal, std::string("internal error: ") + what);
}

}  // namespace nibble
