#include "text/pre_tokenizer.h"

#include "base/error.h"
#include "text/model.h"

namespace nibble::text {

/// One running step and where its parts go.
class PreTokenizer::Run::Link : public PieceSink {
 public:
  Link(std::unique_ptr<PreTokenizerStep::Run> step, PieceSink& next) : step_(std::move(step)), next_(next) {}
  void take(Piece piece) override {
    if (!piece.text.empty()) step_->apply(piece, next_);
  }

 private:
  std::unique_ptr<PreTokenizerStep::Run> step_;
  PieceSink& next_;
};

PreTokenizer::Run::Run(const PreTokenizer& steps, PieceSink& out) : out_(out) {
  for (auto step = steps.steps_.rbegin(); step != steps.steps_.rend(); ++step) {
    PieceSink& next = links_.empty() ? out_ : *links_.back();
    links_.push_back(std::make_unique<Link>((*step)->run(), next));
  }
}

PreTokenizer::Run::~Run() = default;

void PreTokenizer::Run::apply(Piece piece) {
  if (piece.text.empty()) return;
  PieceSink& first = links_.empty() ? out_ : *links_.back();
  first.take(piece);
}

PreTokenizer::PreTokenizer(const Json* json, const std::string& where) {
  if (json != nullptr && !json->is_null()) add(*json, where);
}

void PreTokenizer::add(const Json& json, const std::string& where) {
  const std::string type = read_text(json, "type", "", where);
  if (type == "Sequence") {
    const Json* list = json.get("pretokenizers");
    if (list == nullptr) throw bad_input(where, ": no pretokenizers");
    for (const Json& item : list->array(where + ".pretokenizers")) add(item, where);
    return;
  }
  if (byte_level_) {  // not the last step after all
    steps_.push_back(byte_level_rewrite());
    byte_level_ = false;
  }
  if (type == "ByteLevel") {
    const bool prefix = read_flag(json, "add_prefix_space", true, where);
    const bool regex = read_flag(json, "use_regex", true, where);
    if (prefix || regex) steps_.push_back(byte_level_cut(prefix, regex));
    byte_level_ = true;
    return;
  }
  steps_.push_back(read_pre_tokenizer_step(json, where));
}

}  // namespace nibble::text
