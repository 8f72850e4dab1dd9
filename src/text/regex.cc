#include "text/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <new>
#include <vector>

#include "base/error.h"

namespace nibble::text {
namespace {

constexpr std::uint32_t kMatchLimit = 20'000'000;
constexpr std::uint32_t kDepthLimit = 1'000'000;
constexpr std::size_t kJitStackMax = std::size_t{64} << 20;
constexpr std::size_t kMaxPattern = 65536;
/// Oniguruma's word characters; the last six are fractions and superscripts of Latin-1 that it counts too.
constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

bool hex_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/// Walks a pattern once, copying and replacing; remembers where the last atom began, which {n,m}+ needs.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        begin_atom();
        escape(false);
      } else if (c == '[') {
        begin_atom();
        character_class();
      } else if (c == '(') {
        groups_.push_back(out_.size());
        copy(1);
      } else if (c == ')') {
        if (!groups_.empty()) {
          atom_ = groups_.back();
          groups_.pop_back();
        }
        copy(1);
      } else if (c == '{' && interval() > 0) {
        quantify();
      } else if (c == '*' || c == '+' || c == '?') {
        copy(1);
      } else {
        begin_atom();
        copy(1);
        while (at_ < in_.size() && (static_cast<unsigned char>(in_[at_]) & 0xc0) == 0x80) copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  void begin_atom() { atom_ = out_.size(); }
  void copy(std::size_t count) {
    out_.append(in_.substr(at_, count));
    at_ += count;
  }

  /// Length of a {n}, {n,}, {,m} or {n,m} that begins here, else 0.
  std::size_t interval() const {
    std::size_t i = at_ + 1;
    bool digits = false;
    while (i < in_.size() && ((in_[i] >= '0' && in_[i] <= '9') || in_[i] == ',')) digits |= in_[i++] != ',';
    return digits && i < in_.size() && in_[i] == '}' ? i + 1 - at_ : 0;
  }

  /// X{n,m}+ repeats X{n,m} here, while PCRE2 takes the + for possessive; {,m} is {0,m}.
  void quantify() {
    const std::size_t length = interval();
    const bool open_begin = in_[at_ + 1] == ',';
    if (open_begin) {
      out_ += "{0";
      ++at_;
      copy(length - 1);
    } else {
      copy(length);
    }
    if (at_ < in_.size() && in_[at_] == '+') {
      out_.insert(atom_, "(?:");
      out_ += ")";
    }
  }

  /// An escape, inside a class or not.
  void escape(bool in_class) {
    const char next = at_ + 1 < in_.size() ? in_[at_ + 1] : '\0';
    const auto replace = [&](std::string_view text) {
      out_ += text;
      at_ += 2;
    };
    switch (next) {
      case 's': return replace("\\p{White_Space}");
      case 'S': return replace("\\P{White_Space}");
      case 'd': return replace("\\p{Nd}");
      case 'D': return replace("\\P{Nd}");
      case 'w': return replace(in_class ? std::string(kWord) : cat("[", kWord, "]"));
      case 'W': return replace(in_class ? std::string("\\W") : cat("[^", kWord, "]"));
      case 'h': return replace(in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
      case 'H': return replace(in_class ? "\\H" : "[^0-9a-fA-F]");
      case 'Z': return replace("\\Z");
      default: break;
    }
    if (next == 'u' && at_ + 6 <= in_.size()) {
      const std::string_view digits = in_.substr(at_ + 2, 4);
      if (hex_digit(digits[0]) && hex_digit(digits[1]) && hex_digit(digits[2]) && hex_digit(digits[3])) {
        out_ += "\\x{";
        out_ += digits;
        out_ += "}";
        at_ += 6;
        return;
      }
    }
    if ((next == 'p' || next == 'P') && at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      const std::size_t close = in_.find('}', at_);
      return copy(close == std::string_view::npos ? in_.size() - at_ : close + 1 - at_);
    }
    copy(std::min<std::size_t>(2, in_.size() - at_));
  }

  /// [...]: nested sets are united and && intersects, neither of which PCRE2 knows. A&&B becomes (?=[A])[B].
  void character_class() {
    const std::size_t begin = out_.size();
    const bool negated = at_ + 1 < in_.size() && in_[at_ + 1] == '^';
    std::string operands;
    copy(negated ? 2 : 1);
    if (at_ < in_.size() && in_[at_] == ']') out_ += "\\]", ++at_;
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '\\') {
        escape(true);
      } else if (in_.substr(at_, 2) == "[:") {
        const std::size_t close = in_.find(":]", at_);
        copy(close == std::string_view::npos ? in_.size() - at_ : close + 2 - at_);
      } else if (in_.substr(at_, 2) == "&&") {
        at_ += 2;
        operands += "(?=" + out_.substr(begin) + "])";
        out_.resize(begin);
        out_ += '[';
        if (at_ + 1 < in_.size() && in_.substr(at_, 2) == "[^") nested_operand();
      } else if (in_[at_] == '[') {
        nested();
      } else {
        copy(1);
      }
    }
    if (at_ < in_.size()) copy(1);
    if (operands.empty()) return;
    const std::string last = out_.substr(begin);
    out_.resize(begin);
    if (negated) {  // [^A&&B] is not (A and B)
      operands.replace(operands.find("[^"), 2, "[");
      out_ += "(?:(?!" + operands + last + ")(?s:.))";
    } else {
      out_ += "(?:" + operands + last + ")";
    }
  }

  /// The set [^...] alone on the right of &&.
  void nested_operand() {
    out_ += '^';
    at_ += 2;
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '\\') {
        escape(true);
      } else {
        copy(1);
      }
    }
    if (at_ < in_.size()) ++at_;
  }

  /// A plain set inside a set: its members join the outer one.
  void nested() {
    ++at_;
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '\\') {
        escape(true);
      } else {
        copy(1);
      }
    }
    if (at_ < in_.size()) ++at_;
  }

  std::string_view in_;
  std::string out_;
  std::size_t at_ = 0;
  std::size_t atom_ = 0;
  std::vector<std::size_t> groups_;
};

struct MatchState {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::State {
  pcre2_code* code = nullptr;
  bool jit = false;
  std::string where;
  ~State() { pcre2_code_free(code); }
};

std::string translate_regex(std::string_view pattern) { return Translator(pattern).run(); }

Regex::Regex(std::string_view pattern, std::string_view where) {
  if (pattern.size() > kMaxPattern) throw bad_input(where, ": regular expression of ", pattern.size(), " bytes");
  const std::string translated = translate_regex(pattern);
  auto state = std::make_shared<State>();
  state->where = where;
  int code = 0;
  PCRE2_SIZE offset = 0;
  constexpr std::uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  state->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &code,
                              &offset, nullptr);
  if (state->code == nullptr) {
    throw bad_input(where, ": regular expression \"", printable(pattern), "\": ", error_text(code));
  }
  state->jit = pcre2_jit_compile(state->code, PCRE2_JIT_COMPLETE) == 0;
  state_ = std::move(state);
}

void Regex::Matcher::Free::operator()(void* data) const { delete static_cast<MatchState*>(data); }

Regex::Matcher::Matcher(const Regex& regex) : regex_(regex) {
  auto state = std::make_unique<MatchState>();
  state->data = pcre2_match_data_create(1, nullptr);
  state->context = pcre2_match_context_create(nullptr);
  if (state->data == nullptr || state->context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(state->context, kMatchLimit);
  pcre2_set_depth_limit(state->context, kDepthLimit);
  if (regex_.state_->jit) {
    state->stack = pcre2_jit_stack_create(std::size_t{32} << 10, kJitStackMax, nullptr);
    pcre2_jit_stack_assign(state->context, nullptr, state->stack);
  }
  data_.reset(state.release());
}

std::optional<Range> Regex::Matcher::find(std::string_view text, std::size_t from) {
  auto* const state = static_cast<MatchState*>(data_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int rc = regex_.state_->jit
                     ? pcre2_jit_match(regex_.state_->code, subject, text.size(), from, 0, state->data, state->context)
                     : pcre2_match(regex_.state_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, state->data,
                                   state->context);
  if (rc == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (rc < 0) throw bad_input(regex_.state_->where, ": regular expression fails on this text: ", error_text(rc));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state->data);
  if (offsets[1] < offsets[0])
    throw bad_input(regex_.state_->where, ": regular expression moves its match begin (\\K)");
  return Range{offsets[0], offsets[1]};
}

}  // namespace nibble::text
