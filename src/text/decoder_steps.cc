#include <optional>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/decoder.h"
#include "text/model.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace nibble::text {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// A running step that needs each token whole.
class WholeTokens : public TokenSink {
 public:
  explicit WholeTokens(TokenSink& out) : out_(out) {}
  void part(std::string_view text) final { token_ += text; }
  void end_token() final {
    const std::string token = std::move(token_);
    token_.clear();
    take(token);
  }
  void finish() final {
    flush();
    out_.finish();
  }

 protected:
  virtual void take(const std::string& token) = 0;
  virtual void flush() {}
  void emit(std::string_view token) {
    out_.part(token);
    out_.end_token();
  }
  TokenSink& out_;

 private:
  std::string token_;
};

/// A step from a function(index, token) -> token.
template <class Map>
class MapStep : public DecoderStep {
 public:
  explicit MapStep(Map map) : map_(std::move(map)) {}
  std::unique_ptr<TokenSink> connect(TokenSink& out) const override { return std::make_unique<Running>(map_, out); }

 private:
  class Running : public WholeTokens {
   public:
    Running(const Map& map, TokenSink& out) : WholeTokens(out), map_(map) {}
    void take(const std::string& token) override { emit(map_(index_++, token)); }

   private:
    const Map& map_;
    std::size_t index_ = 0;
  };
  Map map_;
};

template <class Map>
std::shared_ptr<const DecoderStep> map_step(Map map) {
  return std::make_shared<MapStep<Map>>(std::move(map));
}

/// A step whose running part takes the arguments given here.
template <class Running, class... Args>
class ConnectStep : public DecoderStep {
 public:
  explicit ConnectStep(Args... args) : args_(std::move(args)...) {}
  std::unique_ptr<TokenSink> connect(TokenSink& out) const override {
    return std::apply([&](const auto&... args) { return std::make_unique<Running>(out, args...); }, args_);
  }

 private:
  std::tuple<Args...> args_;
};

template <class Running, class... Args>
std::shared_ptr<const DecoderStep> connect_step(Args... args) {
  return std::make_shared<ConnectStep<Running, Args...>>(std::move(args)...);
}

std::string replace_all(std::string_view text, std::string_view what, std::string_view with) {
  if (what.empty()) return std::string(text);
  std::string out;
  std::size_t done = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, done)) {
    out.append(text.substr(done, at - done)).append(with);
    done = at + what.size();
  }
  return out.append(text.substr(done));
}

/// What English tokenizers put apart, joined again (the same list and order as the library).
std::string clean_up(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [what, with] : rules) text = replace_all(text, what, with);
  return text;
}

class Join : public TokenSink {
 public:
  explicit Join(TokenSink& out) : out_(out) {}
  void part(std::string_view text) override {
    begin();
    out_.part(text);
  }
  void end_token() override {
    begin();
    inside_ = false;
  }
  void finish() override { out_.finish(); }

 private:
  void begin() {
    if (!inside_ && any_) out_.part(" ");
    inside_ = any_ = true;
  }
  TokenSink& out_;
  bool inside_ = false, any_ = false;
};

class Fuse : public TokenSink {
 public:
  explicit Fuse(TokenSink& out) : out_(out) {}
  void part(std::string_view text) override { out_.part(text); }
  void end_token() override {}
  void finish() override {
    out_.end_token();
    out_.finish();
  }

 private:
  TokenSink& out_;
};

/// Characters of the GPT-2 alphabet to bytes; a token with any other character stands for itself. All tokens become
/// one, given on as soon as its characters are complete.
class ByteLevel : public TokenSink {
 public:
  explicit ByteLevel(TokenSink& out) : out_(out) {}
  void part(std::string_view text) override { token_ += text; }
  void end_token() override {
    append_bytes();
    token_.clear();
    give(complete());
  }
  void finish() override {
    give(bytes_.size());
    out_.end_token();
    out_.finish();
  }

 private:
  void append_bytes() {
    const std::size_t begin = bytes_.size();
    for (std::size_t at = 0; at < token_.size();) {
      const Char c = char_at(token_, at);
      const int byte = byte_of_char(c.code);
      if (byte < 0) {
        bytes_.resize(begin);
        bytes_ += token_;
        return;
      }
      bytes_.push_back(static_cast<char>(byte));
      at += c.size;
    }
  }
  /// Bytes before a character that may still be completed.
  std::size_t complete() const {
    const std::size_t look = bytes_.size() < 3 ? bytes_.size() : 3;
    for (std::size_t back = 1; back <= look; ++back) {
      const auto byte = static_cast<unsigned char>(bytes_[bytes_.size() - back]);
      if (byte < 0x80) break;
      if (byte < 0xc0) continue;
      const std::size_t need = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
      return need > back ? bytes_.size() - back : bytes_.size();
    }
    return bytes_.size();
  }
  void give(std::size_t count) {
    if (count > 0) out_.part(utf8_replace_invalid(std::string_view(bytes_).substr(0, count)));
    bytes_.erase(0, count);
  }

  TokenSink& out_;
  std::string token_, bytes_;
};

/// Runs of <0xHH> tokens to their text; each byte of a run that is not UTF-8 becomes U+FFFD.
class ByteFallback : public WholeTokens {
 public:
  using WholeTokens::WholeTokens;
  void take(const std::string& token) override {
    if (const int byte = byte_of(token); byte >= 0) {
      run_.push_back(static_cast<char>(byte));
      return;
    }
    flush();
    emit(token);
  }
  void flush() override {
    if (run_.empty()) return;
    if (utf8_valid(run_)) {
      emit(run_);
    } else {
      for (std::size_t i = 0; i < run_.size(); ++i) emit(kReplacement);
    }
    run_.clear();
  }

 private:
  static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  }
  static int byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    const int high = digit(token[3]), low = digit(token[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
  }
  std::string run_;
};

/// Up to `start` leading characters `content` go from each token; parts pass through.
class StripStart : public TokenSink {
 public:
  StripStart(TokenSink& out, char32_t content, std::int64_t start) : out_(out), content_(content), start_(start) {}
  void part(std::string_view text) override {
    while (cut_ >= 0 && cut_ < start_ && !text.empty()) {
      const Char c = char_at(text, 0);
      if (c.code != content_) {
        cut_ = -1;
      } else {
        ++cut_;
        text.remove_prefix(c.size);
      }
    }
    out_.part(text);
  }
  void end_token() override {
    cut_ = 0;
    out_.end_token();
  }
  void finish() override { out_.finish(); }

 private:
  TokenSink& out_;
  char32_t content_;
  std::int64_t start_;
  std::int64_t cut_ = 0;  ///< characters cut from this token, -1 once another character came
};

std::string strip(std::string_view token, char32_t content, std::int64_t start, std::int64_t stop) {
  for (; start > 0 && !token.empty() && char_at(token, 0).code == content; --start) {
    token.remove_prefix(char_at(token, 0).size);
  }
  for (; stop > 0 && !token.empty() && char_before(token, token.size()).code == content; --stop) {
    token.remove_suffix(char_before(token, token.size()).size);
  }
  return std::string(token);
}

/// The suffix of a word becomes a space, that of the last token nothing.
class BpeSuffix : public WholeTokens {
 public:
  BpeSuffix(TokenSink& out, const std::string& suffix) : WholeTokens(out), suffix_(suffix) {}
  void take(const std::string& token) override {
    if (held_) emit(replace_all(*held_, suffix_, " "));
    held_ = token;
  }
  void flush() override {
    if (held_) emit(replace_all(*held_, suffix_, ""));
  }

 private:
  std::string suffix_;
  std::optional<std::string> held_;
};

/// Connectionist temporal classification: repeated tokens once, pad tokens gone.
class Ctc : public WholeTokens {
 public:
  Ctc(TokenSink& out, const std::string& pad, const std::string& delimiter, bool clean)
      : WholeTokens(out), pad_(pad), delimiter_(delimiter), clean_(clean) {}
  void take(const std::string& token) override {
    if (last_ == token) return;
    last_ = token;
    std::string text = replace_all(token, pad_, "");
    if (clean_) text = replace_all(clean_up(std::move(text)), delimiter_, " ");
    if (!text.empty()) emit(text);
  }

 private:
  std::string pad_, delimiter_;
  bool clean_;
  std::optional<std::string> last_;
};

std::shared_ptr<const DecoderStep> read_strip(const Json& json, const std::string& where) {
  const std::string content = read_text(json, "content", " ", where);
  if (content.empty() || utf8_length(content) != content.size()) throw bad_input(where, ".content: not one character");
  const char32_t c = utf8_decode(content, content.size());
  const std::int64_t start = read_count(json, "start", 0, where), stop = read_count(json, "stop", 0, where);
  if (stop == 0) return connect_step<StripStart>(c, start);
  return map_step([=](std::size_t, const std::string& token) { return strip(token, c, start, stop); });
}

std::shared_ptr<const DecoderStep> read_metaspace(const Json& json, const std::string& where) {
  const std::string mark = read_text(json, "replacement", "\xe2\x96\x81", where);
  const bool old_prefix = read_flag(json, "add_prefix_space", true, where);
  const bool prefix = read_text(json, "prepend_scheme", old_prefix ? "always" : "never", where) != "never";
  return map_step([=](std::size_t index, const std::string& token) {
    return replace_all(token, mark, index == 0 && prefix ? "" : " ");
  });
}

std::shared_ptr<const DecoderStep> read_wordpiece_decoder(const Json& json, const std::string& where) {
  const std::string prefix = read_text(json, "prefix", "##", where);
  const bool clean = read_flag(json, "cleanup", true, where);
  return map_step([=](std::size_t index, const std::string& token) {
    std::string text = token;
    if (index > 0) text = token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
    return clean ? clean_up(std::move(text)) : text;
  });
}

}  // namespace

std::shared_ptr<const DecoderStep> join_step() { return connect_step<Join>(); }

std::shared_ptr<const DecoderStep> read_decoder_step(const Json& json, const std::string& where) {
  const std::string type = read_text(json, "type", "", where);
  if (type == "ByteLevel") return connect_step<ByteLevel>();
  if (type == "Fuse") return connect_step<Fuse>();
  if (type == "ByteFallback") return connect_step<ByteFallback>();
  if (type == "Strip") return read_strip(json, where);
  if (type == "Metaspace") return read_metaspace(json, where);
  if (type == "WordPiece") return read_wordpiece_decoder(json, where);
  if (type == "BPEDecoder") return connect_step<BpeSuffix>(read_text(json, "suffix", "</w>", where));
  if (type == "CTC") {
    return connect_step<Ctc>(read_text(json, "pad_token", "<pad>", where),
                             read_text(json, "word_delimiter_token", "|", where),
                             read_flag(json, "cleanup", true, where));
  }
  if (type == "Replace") {
    return map_step([pattern = read_pattern(json, where), content = read_text(json, "content", "", where)](
                        std::size_t, const std::string& token) { return pattern.replace(token, content); });
  }
  throw bad_input(where, ": unknown decoder type \"", printable(type), "\"");
}

}  // namespace nibble::text
