// The "decoder" section of tokenizer.json: from token strings back to text. Every step is written as a stream, so that
// decoding token by token gives exactly what decoding all at once gives.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble::text {

/// Takes tokens in parts: part() any number of times, then end_token(); finish() after the last token. Parts never
/// split a UTF-8 character.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  virtual void part(std::string_view text) = 0;
  virtual void end_token() = 0;
  virtual void finish() = 0;
};

/// One step; `connect` makes a running copy that writes to `out`, for one text.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  virtual std::unique_ptr<TokenSink> connect(TokenSink& out) const = 0;
};

class Decoder {
 public:
  /// No decoder: tokens joined by spaces, as the tokenizers library does.
  Decoder();
  /// From the section, which may be null. Throws Error(bad_input) beginning with `where`.
  Decoder(const Json* json, const std::string& where);

  /// The steps in operation for one text.
  class Run {
   public:
    explicit Run(const Decoder& decoder);
    void push(std::string_view token);
    void finish();
    /// The text since the last call.
    std::string take();

   private:
    class Output;
    std::vector<std::unique_ptr<TokenSink>> chain_;  ///< last step first; [0] is the output
    Output* output_;

   public:
    ~Run();
  };

 private:
  void add(const Json& json, const std::string& where);
  std::vector<std::shared_ptr<const DecoderStep>> steps_;
};

/// The step of a decoder object that is no Sequence.
std::shared_ptr<const DecoderStep> read_decoder_step(const Json& json, const std::string& where);
/// Joins tokens with spaces.
std::shared_ptr<const DecoderStep> join_step();

}  // namespace nibble::text
