#include "text/normalizer.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "text/model.h"
#include "text/pattern.h"
#include "text/precompiled.h"
#include "text/unicode.h"

namespace nibble::text {
namespace {

/// A normalizer that is one function of the text and its flag.
template <class Apply>
class Step : public Normalizer {
 public:
  explicit Step(Apply apply) : apply_(std::move(apply)) {}
  void apply(Normalized& text) const override { apply_(text); }

 private:
  Apply apply_;
};

template <class Apply>
std::unique_ptr<Normalizer> step(Apply apply) {
  return std::make_unique<Step<Apply>>(std::move(apply));
}

std::unique_ptr<Normalizer> form_step(Form form) {
  return step([form](Normalized& text) { text.text = normalize(text.text, form); });
}

/// Replaces each character: `map(code, out)` appends what stands for it. A first character that vanishes moves the
/// beginning.
template <class Map>
void map_characters(Normalized& text, Map map) {
  std::string out;
  out.reserve(text.text.size());
  for (std::size_t at = 0; at < text.text.size();) {
    const Char c = char_at(text.text, at);
    map(c.code, out);
    if (at == 0 && out.empty()) text.at_start = false;
    at += c.size;
  }
  text.text = std::move(out);
}

void keep(char32_t c, std::string& out) { utf8_append(out, c); }

void lowercase(Normalized& text) {
  map_characters(text, [](char32_t c, std::string& out) { append_lower(out, c); });
}

void strip(Normalized& text, bool left, bool right) {
  std::string& s = text.text;
  std::size_t end = s.size();
  while (right && end > 0) {
    const Char last = char_before(s, end);
    if (!is_whitespace(last.code)) break;
    end = last.begin;
  }
  std::size_t begin = 0;
  while (left && begin < end) {
    const Char first = char_at(s, begin);
    if (!is_whitespace(first.code)) break;
    begin += first.size;
  }
  if (begin > 0) text.at_start = false;
  s = s.substr(begin, end - begin);
}

/// Control characters out, odd spaces to plain ones: what sentencepiece's "nmt" rules do.
void nmt(Normalized& text) {
  map_characters(text, [](char32_t c, std::string& out) {
    const bool removed =
        (c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
    if (removed) return;
    const bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
                       c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
    keep(space ? U' ' : c, out);
  });
}

bool is_chinese(char32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

struct Bert {
  bool clean_text, handle_chinese_chars, strip_accents, lower;

  void operator()(Normalized& text) const {
    if (clean_text) {
      map_characters(text, [](char32_t c, std::string& out) {
        const bool plain = c == '\t' || c == '\n' || c == '\r';
        if (!plain && (c == 0 || c == 0xfffd || is_other(c))) return;
        keep(plain || is_whitespace(c) ? U' ' : c, out);
      });
    }
    if (handle_chinese_chars) {
      map_characters(text, [](char32_t c, std::string& out) {
        if (is_chinese(c)) out += ' ';
        keep(c, out);
        if (is_chinese(c)) out += ' ';
      });
    }
    if (strip_accents) {
      text.text = normalize(text.text, Form::nfd);
      map_characters(text, [](char32_t c, std::string& out) {
        if (!is_nonspacing_mark(c)) keep(c, out);
      });
    }
    if (lower) lowercase(text);
  }
};

std::unique_ptr<Normalizer> read_bert(const Json& json, const std::string& where) {
  const bool lower = read_flag(json, "lowercase", true, where);
  return step(Bert{read_flag(json, "clean_text", true, where), read_flag(json, "handle_chinese_chars", true, where),
                   read_flag(json, "strip_accents", lower, where), lower});
}

std::unique_ptr<Normalizer> read_replace(const Json& json, const std::string& where) {
  const Pattern pattern = read_pattern(json, where);
  return step([pattern, content = read_text(json, "content", "", where)](Normalized& text) {
    text.text = pattern.replace(text.text, content);
  });
}

std::unique_ptr<Normalizer> read_sequence(const Json& json, const std::string& where) {
  const Json* list = json.get("normalizers");
  if (list == nullptr) throw bad_input(where, ": no normalizers");
  std::vector<std::shared_ptr<const Normalizer>> steps;
  for (const Json& item : list->array(where + ".normalizers")) {
    if (auto next = read_normalizer(&item, where)) steps.push_back(std::move(next));
  }
  return step([steps](Normalized& text) {
    for (const auto& each : steps) each->apply(text);
  });
}

}  // namespace

std::unique_ptr<Normalizer> read_normalizer(const Json* json, const std::string& where) {
  if (json == nullptr || json->is_null()) return nullptr;
  const std::string type = read_text(*json, "type", "", where);
  if (type == "Sequence") return read_sequence(*json, where);
  if (type == "NFC") return form_step(Form::nfc);
  if (type == "NFD") return form_step(Form::nfd);
  if (type == "NFKC") return form_step(Form::nfkc);
  if (type == "NFKD") return form_step(Form::nfkd);
  if (type == "Lowercase") return step(lowercase);
  if (type == "Nmt") return step(nmt);
  if (type == "BertNormalizer") return read_bert(*json, where);
  if (type == "Replace") return read_replace(*json, where);
  if (type == "Strip") {
    return step([left = read_flag(*json, "strip_left", true, where),
                 right = read_flag(*json, "strip_right", true, where)](Normalized& text) { strip(text, left, right); });
  }
  if (type == "StripAccents") {
    return step([](Normalized& text) {
      map_characters(text, [](char32_t c, std::string& out) {
        if (!is_combining_mark(c)) keep(c, out);
      });
    });
  }
  if (type == "Prepend") {
    return step([prefix = read_text(*json, "prepend", "", where)](Normalized& text) {
      if (!text.text.empty()) text.text.insert(0, prefix);
    });
  }
  if (type == "ByteLevel") {
    return step([](Normalized& text) {
      std::string out;
      append_byte_level(out, text.text);
      text.text = std::move(out);
    });
  }
  if (type == "Precompiled") {
    return step(
        [map = Precompiled(read_text(*json, "precompiled_charsmap", "", where), where + ".precompiled_charsmap")](
            Normalized& text) { text.text = map.apply(text.text); });
  }
  throw bad_input(where, ": unknown normalizer type \"", printable(type), "\"");
}

}  // namespace nibble::text
