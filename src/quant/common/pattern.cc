#include "quant/common/pattern.h"

#include <pcre2.h>

#include <array>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::uint32_t kMatchLimit = 200'000, kDepthLimit = 2'000;

std::string pcre2_text(int code) {
  std::array<PCRE2_UCHAR, 160> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

Pattern::Pattern(std::string text, std::string where) : text_(std::move(text)), where_(std::move(where)) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), PCRE2_ANCHORED, &error, &offset, nullptr);
  if (code == nullptr) {
    throw bad_input(where_, ": pattern \"", printable(text_), "\": ", pcre2_text(error), " at ", offset);
  }
  code_ = std::shared_ptr<const void>(
      code, [](const void* held) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(held))); });
}

bool Pattern::matches_start(std::string_view subject) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context(
      pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  if (match == nullptr || context == nullptr) throw runtime_failure(where_, ": out of memory");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  const int result =
      pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), 0, 0, match.get(), context.get());
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw bad_input(where_, ": pattern \"", printable(text_), "\" on ", printable(subject), ": ", pcre2_text(result));
  }
  return true;
}

}  // namespace nibble
