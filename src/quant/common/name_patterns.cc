#include "quant/common/name_patterns.h"

#include "base/error.h"

#include <pcre2.h>

namespace nibble::quant {
namespace {

constexpr std::size_t kMaxPatterns = 100'000, kMaxLength = 1000;
constexpr std::uint32_t kMatchLimit = 100'000;

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

PCRE2_SPTR text_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct NamePatterns::Compiled {
  explicit Compiled(pcre2_code* code) : code(code) {}
  ~Compiled() { pcre2_code_free(code); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  pcre2_code* code;
};

NamePatterns::NamePatterns(std::vector<std::string> patterns, std::string_view where) : texts_(std::move(patterns)) {
  if (texts_.size() > kMaxPatterns) throw bad_input(where, ": ", texts_.size(), " patterns");
  for (const std::string& text : texts_) {
    if (text.size() > kMaxLength) throw bad_input(where, ": pattern of ", text.size(), " bytes");
    const std::string whole = "(?:" + text + ")(?:\\.|\\z)";
    int error = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code* code = pcre2_compile(text_of(whole), whole.size(), PCRE2_ANCHORED, &error, &offset, nullptr);
    if (code == nullptr) {
      PCRE2_UCHAR message[200] = {};
      pcre2_get_error_message(error, message, sizeof message);
      throw bad_input(where, ": pattern ", printable(text), ": ", reinterpret_cast<const char*>(message));
    }
    compiled_.push_back(std::make_shared<Compiled>(code));
  }
}

bool NamePatterns::matches(std::string_view name) const {
  if (texts_.empty()) return false;
  const std::unique_ptr<pcre2_match_context, FreeContext> context(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(context.get(), kMatchLimit);
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    if (name.size() >= texts_[i].size() && name.substr(name.size() - texts_[i].size()) == texts_[i]) return true;
    const pcre2_code* code = compiled_[i]->code;
    const std::unique_ptr<pcre2_match_data, FreeMatch> data(pcre2_match_data_create_from_pattern(code, nullptr));
    if (pcre2_match(code, text_of(name), name.size(), 0, 0, data.get(), context.get()) >= 0) return true;
  }
  return false;
}

}  // namespace nibble::quant
