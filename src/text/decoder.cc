#include "text/decoder.h"

#include "base/error.h"
#include "text/model.h"

namespace nibble::text {

class Decoder::Run::Output : public TokenSink {
 public:
  void part(std::string_view text) override { text_ += text; }
  void end_token() override {}
  void finish() override {}
  std::string text_;
};

Decoder::Decoder() { steps_.push_back(join_step()); }

Decoder::Decoder(const Json* json, const std::string& where) {
  if (json == nullptr || json->is_null()) {
    steps_.push_back(join_step());
  } else {
    add(*json, where);
  }
}

void Decoder::add(const Json& json, const std::string& where) {
  if (read_text(json, "type", "", where) != "Sequence") {
    steps_.push_back(read_decoder_step(json, where));
    return;
  }
  const Json* list = json.get("decoders");
  if (list == nullptr) throw bad_input(where, ": no decoders");
  for (const Json& item : list->array(where + ".decoders")) add(item, where);
}

Decoder::Run::Run(const Decoder& decoder) {
  auto output = std::make_unique<Output>();
  output_ = output.get();
  chain_.push_back(std::move(output));
  for (auto step = decoder.steps_.rbegin(); step != decoder.steps_.rend(); ++step) {
    chain_.push_back((*step)->connect(*chain_.back()));
  }
}

Decoder::Run::~Run() = default;

void Decoder::Run::push(std::string_view token) {
  chain_.back()->part(token);
  chain_.back()->end_token();
}

void Decoder::Run::finish() { chain_.back()->finish(); }

std::string Decoder::Run::take() {
  std::string text = std::move(output_->text_);
  output_->text_.clear();
  return text;
}

}  // namespace nibble::text
