// The "pre_tokenizer" section of tokenizer.json: cuts normalized text into the pieces that the model encodes one by
// one. Every step handles each piece on its own, so pieces stream through all steps and no list of them is ever kept.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble::text {

struct Piece {
  std::string_view text;
  bool at_start;  ///< begins where the whole input text begins
};

class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual void take(Piece piece) = 0;
};

/// One step; made once per tokenizer.
class PreTokenizerStep {
 public:
  /// What a step needs while it runs (match data of a regex); made once per encode() call.
  class Run {
   public:
    virtual ~Run() = default;
    /// Hands the parts of a piece to `out`; empty ones may be among them.
    virtual void apply(Piece piece, PieceSink& out) = 0;
  };
  virtual ~PreTokenizerStep() = default;
  virtual std::unique_ptr<Run> run() const = 0;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// From the section, which may be null. Throws Error(bad_input) beginning with `where`.
  PreTokenizer(const Json* json, const std::string& where);

  /// Whether pieces leave as raw bytes that the model must still write in the GPT-2 byte alphabet: the last step is
  /// ByteLevel, whose rewriting is left to the cached session of the model.
  bool byte_level() const { return byte_level_; }

  /// The steps in operation, for one encode() call.
  class Run {
   public:
    /// Non-empty pieces go to `out`.
    Run(const PreTokenizer& steps, PieceSink& out);
    void apply(Piece piece);

   private:
    class Link;
    std::vector<std::unique_ptr<Link>> links_;  ///< last step first
    PieceSink& out_;

   public:
    ~Run();
  };

 private:
  void add(const Json& json, const std::string& where);
  std::vector<std::shared_ptr<const PreTokenizerStep>> steps_;
  bool byte_level_ = false;
};

/// The step of a pre-tokenizer object that is no Sequence and no ByteLevel.
std::shared_ptr<const PreTokenizerStep> read_pre_tokenizer_step(const Json& json, const std::string& where);
/// The two halves of ByteLevel: cutting (prefix space, GPT-2 expression) and rewriting in the byte alphabet.
std::shared_ptr<const PreTokenizerStep> byte_level_cut(bool add_prefix_space, bool use_regex);
std::shared_ptr<const PreTokenizerStep> byte_level_rewrite();

}  // namespace nibble::text
