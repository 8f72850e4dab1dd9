// The steps themselves. Most are one rule that marks characters or ranges as "match" and a behaviour that says what
// becomes of matches.
#include <optional>
#include <utility>

#include "base/error.h"
#include "text/model.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"
#include "text/unicode.h"

namespace nibble::text {
namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior read_behavior(const Json& json, Behavior otherwise, const std::string& where) {
  const std::string name = read_text(json, "behavior", "", where);
  if (name.empty()) return otherwise;
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  throw bad_input(where, ": unknown behavior \"", printable(name), "\"");
}

/// Takes the matches and the text between them in order and hands on the parts the behaviour makes of them.
class Splitter {
 public:
  Splitter(Piece piece, Behavior behavior, PieceSink& out) : piece_(piece), behavior_(behavior), out_(out) {}

  void add(Range range, bool match) {
    switch (behavior_) {
      case Behavior::removed:
        if (!match) emit(range);
        break;
      case Behavior::isolated: emit(range); break;
      case Behavior::contiguous: hold(range, pending_ && last_match_ == match); break;
      case Behavior::merged_with_previous: hold(range, pending_ && match && !last_match_); break;
      case Behavior::merged_with_next: hold(range, pending_ && last_match_ && !match); break;
    }
    last_match_ = match;
  }

  void finish() {
    if (pending_) emit(*pending_);
    pending_.reset();
  }

 private:
  /// Keeps a range back in case the next joins it.
  void hold(Range range, bool join) {
    if (join) {
      pending_->end = range.end;
    } else {
      finish();
      pending_ = range;
    }
  }
  void emit(Range range) {
    if (range.begin == range.end) return;
    out_.take({piece_.text.substr(range.begin, range.end - range.begin), piece_.at_start && range.begin == 0});
  }

  Piece piece_;
  Behavior behavior_;
  PieceSink& out_;
  std::optional<Range> pending_;
  bool last_match_ = false;
};

/// Splits on single characters for which `is_match` holds.
template <class IsMatch>
void split_characters(Piece piece, Behavior behavior, PieceSink& out, IsMatch is_match) {
  Splitter splitter(piece, behavior, out);
  std::size_t begin = 0;
  for (std::size_t at = 0; at < piece.text.size();) {
    const Char c = char_at(piece.text, at);
    at += c.size;
    if (!is_match(c.code)) continue;
    if (begin < c.begin) splitter.add({begin, c.begin}, false);
    splitter.add({c.begin, at}, true);
    begin = at;
  }
  if (begin < piece.text.size()) splitter.add({begin, piece.text.size()}, false);
  splitter.finish();
}

/// A step without working memory: one function.
template <class Apply>
class FunctionStep : public PreTokenizerStep {
 public:
  explicit FunctionStep(Apply apply) : apply_(std::move(apply)) {}
  std::unique_ptr<Run> run() const override { return std::make_unique<Running>(apply_); }

 private:
  class Running : public Run {
   public:
    explicit Running(const Apply& apply) : apply_(apply) {}
    void apply(Piece piece, PieceSink& out) override { apply_(piece, out); }

   private:
    const Apply& apply_;
  };
  Apply apply_;
};

template <class Apply>
std::shared_ptr<const PreTokenizerStep> step(Apply apply) {
  return std::make_shared<FunctionStep<Apply>>(std::move(apply));
}

template <class IsMatch>
std::shared_ptr<const PreTokenizerStep> character_step(Behavior behavior, IsMatch is_match) {
  return step([behavior, is_match](Piece piece, PieceSink& out) { split_characters(piece, behavior, out, is_match); });
}

class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(Pattern pattern, Behavior behavior, bool invert, bool prefix_space = false)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert), prefix_space_(prefix_space) {}
  std::unique_ptr<Run> run() const override { return std::make_unique<Running>(*this); }

 private:
  class Running : public Run {
   public:
    explicit Running(const SplitStep& step) : step_(step), finder_(step.pattern_) {}

    void apply(Piece piece, PieceSink& out) override {
      if (step_.prefix_space_ && !piece.text.starts_with(' ')) {
        spaced_.assign(" ").append(piece.text);
        piece.text = spaced_;
      }
      Splitter splitter(piece, step_.behavior_, out);
      finder_.start(piece.text);
      std::size_t done = 0;
      while (const auto match = finder_.next()) {
        if (done < match->begin) splitter.add({done, match->begin}, step_.invert_);
        splitter.add(*match, !step_.invert_);
        done = match->end;
      }
      if (done < piece.text.size()) splitter.add({done, piece.text.size()}, step_.invert_);
      splitter.finish();
    }

   private:
    const SplitStep& step_;
    Pattern::Finder finder_;
    std::string spaced_;
  };

  Pattern pattern_;
  Behavior behavior_;
  bool invert_, prefix_space_;
};

/// \w+|[^\w\s]+ : runs of word characters and runs of what is neither word nor space.
void whitespace_rule(Piece piece, PieceSink& out) {
  const auto kind_of = [](char32_t c) { return is_word(c) ? 1 : is_whitespace(c) ? 0 : 2; };
  std::size_t begin = 0;
  int kind = 0;
  for (std::size_t at = 0; at <= piece.text.size();) {
    const bool end = at == piece.text.size();
    const Char c = end ? Char{at, 1, 0} : char_at(piece.text, at);
    const int next = end ? -1 : kind_of(c.code);
    if (next != kind) {
      if (kind > 0) out.take({piece.text.substr(begin, at - begin), piece.at_start && begin == 0});
      begin = at;
      kind = next;
    }
    at += c.size;
  }
}

/// BERT: white space goes, each punctuation character stands alone.
class BertSink : public PieceSink {
 public:
  explicit BertSink(PieceSink& out) : out_(out) {}
  void take(Piece piece) override { split_characters(piece, Behavior::isolated, out_, is_punctuation); }

 private:
  PieceSink& out_;
};

/// Cuts where the script changes. As in the library, spaces belong to any script, and those that a piece begins with
/// are dropped.
void scripts_rule(Piece piece, PieceSink& out) {
  int last = script_any - 1;
  std::optional<std::size_t> begin;
  for (std::size_t at = 0; at < piece.text.size();) {
    const Char c = char_at(piece.text, at);
    at += c.size;
    const int script = fixed_script(c.code);
    if (script == script_any || script == last) continue;
    if (begin) out.take({piece.text.substr(*begin, c.begin - *begin), piece.at_start && *begin == 0});
    begin = c.begin;
    last = script;
  }
  if (begin) out.take({piece.text.substr(*begin), piece.at_start && *begin == 0});
}

std::shared_ptr<const PreTokenizerStep> fixed_length(const Json& json, const std::string& where) {
  const std::int64_t length = read_count(json, "length", 5, where);
  if (length == 0) throw bad_input(where, ".length: must be greater than 0");
  return step([length](Piece piece, PieceSink& out) {
    std::size_t begin = 0;
    std::int64_t held = 0;
    for (std::size_t at = 0; at < piece.text.size();) {
      at += char_at(piece.text, at).size;
      if (++held < length && at < piece.text.size()) continue;
      out.take({piece.text.substr(begin, at - begin), piece.at_start && begin == 0});
      begin = at;
      held = 0;
    }
  });
}

enum class Prepend { always, first, never };

std::shared_ptr<const PreTokenizerStep> metaspace(const Json& json, const std::string& where) {
  const std::string replacement = read_text(json, "replacement", "\xe2\x96\x81", where);
  if (replacement.empty() || utf8_length(replacement) != replacement.size()) {
    throw bad_input(where, ".replacement: not one character");
  }
  const bool old_prefix = read_flag(json, "add_prefix_space", true, where);
  const std::string scheme = read_text(json, "prepend_scheme", old_prefix ? "always" : "never", where);
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    throw bad_input(where, ".prepend_scheme: unknown scheme \"", printable(scheme), "\"");
  }
  const Prepend prepend = scheme == "always" ? Prepend::always : scheme == "first" ? Prepend::first : Prepend::never;
  const bool split = read_flag(json, "split", true, where);
  const char32_t mark = utf8_decode(replacement, replacement.size());
  return step([=](Piece piece, PieceSink& out) {
    std::string marked;
    marked.reserve(piece.text.size() + piece.text.size() / 2 + 4);
    const bool bare = !piece.text.starts_with(' ') && !piece.text.starts_with(replacement);
    if (bare && (prepend == Prepend::always || (prepend == Prepend::first && piece.at_start))) marked += replacement;
    for (const char c : piece.text) {
      if (c == ' ') {
        marked += replacement;
      } else {
        marked += c;
      }
    }
    const Piece whole{marked, piece.at_start};
    if (!split) return out.take(whole);
    split_characters(whole, Behavior::merged_with_next, out, [mark](char32_t c) { return c == mark; });
  });
}

std::shared_ptr<const PreTokenizerStep> delimiter(const Json& json, const std::string& where) {
  const std::string text = read_text(json, "delimiter", "", where);
  if (text.empty() || utf8_length(text) != text.size()) throw bad_input(where, ".delimiter: not one character");
  const char32_t mark = utf8_decode(text, text.size());
  return character_step(Behavior::removed, [mark](char32_t c) { return c == mark; });
}

}  // namespace

std::shared_ptr<const PreTokenizerStep> byte_level_cut(bool add_prefix_space, bool use_regex) {
  if (use_regex) {
    return std::make_shared<SplitStep>(Pattern(Regex(kGpt2, "ByteLevel")), Behavior::isolated, false, add_prefix_space);
  }
  return step([](Piece piece, PieceSink& out) {
    if (piece.text.starts_with(' ')) return out.take(piece);
    const std::string spaced = " " + std::string(piece.text);
    out.take({spaced, piece.at_start});
  });
}

std::shared_ptr<const PreTokenizerStep> byte_level_rewrite() {
  return step([](Piece piece, PieceSink& out) {
    std::string written;
    append_byte_level(written, piece.text);
    out.take({written, piece.at_start});
  });
}

std::shared_ptr<const PreTokenizerStep> read_pre_tokenizer_step(const Json& json, const std::string& where) {
  const std::string type = read_text(json, "type", "", where);
  if (type == "Metaspace") return metaspace(json, where);
  if (type == "Split") {
    return std::make_shared<SplitStep>(read_pattern(json, where), read_behavior(json, Behavior::isolated, where),
                                       read_flag(json, "invert", false, where));
  }
  if (type == "Whitespace") return step(whitespace_rule);
  if (type == "WhitespaceSplit") return character_step(Behavior::removed, is_whitespace);
  if (type == "Punctuation") {
    return character_step(read_behavior(json, Behavior::isolated, where), is_punctuation);
  }
  if (type == "Digits") {
    const bool individual = read_flag(json, "individual_digits", false, where);
    return character_step(individual ? Behavior::isolated : Behavior::contiguous, is_numeric);
  }
  if (type == "BertPreTokenizer") {
    return step([](Piece piece, PieceSink& out) {
      BertSink words(out);
      split_characters(piece, Behavior::removed, words, is_whitespace);
    });
  }
  if (type == "CharDelimiterSplit") return delimiter(json, where);
  if (type == "UnicodeScripts") return step(scripts_rule);
  if (type == "FixedLength") return fixed_length(json, where);
  throw bad_input(where, ": unknown pre_tokenizer type \"", printable(type), "\"");
}

}  // namespace nibble::text
