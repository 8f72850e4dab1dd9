#include "base/error.h"
#include "text/pipeline_tokenizer.h"
#include "text/tokenizer.h"

namespace nibble {

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  const text::PipelineTokenizer* pipeline;
  text::Decoder::Run run;
  bool skip_special;
  bool finished = false;
};

namespace {

const text::PipelineTokenizer& pipeline_of(const std::shared_ptr<const Tokenizer>& tokenizer) {
  const auto* pipeline = dynamic_cast<const text::PipelineTokenizer*>(tokenizer.get());
  if (pipeline == nullptr) throw Error(ErrorKind::internal, "StreamDecoder needs a tokenizer from Tokenizer::open");
  return *pipeline;
}

}  // namespace

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special) {
  const text::PipelineTokenizer& pipeline = pipeline_of(tokenizer);
  state_.reset(new State{std::move(tokenizer), &pipeline, text::Decoder::Run(pipeline.decoder()), skip_special});
}

StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(std::int32_t id) {
  if (const auto token = state_->pipeline->piece(id, state_->skip_special)) state_->run.push(*token);
  return state_->run.take();
}

std::string StreamDecoder::finish() {
  if (state_->finished) return {};
  state_->finished = true;
  state_->run.finish();
  return state_->run.take();
}

}  // namespace nibble
