#include "run/generate.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/stopwatch.h"
#include "models/config_reader.h"

namespace nibble {
namespace {

constexpr std::int64_t kMaxId = std::numeric_limits<std::int32_t>::max();

/// One id, a list of ids, or nothing.
std::vector<std::int32_t> read_eos(const models::ConfigReader& fields) {
  std::vector<std::int32_t> out;
  const Json* value = fields.find({"eos_token_id"});
  if (value == nullptr) return out;
  const std::string where = fields.field("eos_token_id");
  const auto add = [&](const Json& id) {
    const std::int64_t number = id.integer(where);
    if (number > kMaxId || number < -kMaxId) throw bad_input(where, ": ", number, " is no token id");
    if (number >= 0) out.push_back(static_cast<std::int32_t>(number));  // -1 is an old way of saying none
  };
  if (!value->is_array()) {
    add(*value);
  } else {
    for (const Json& id : value->array(where)) add(id);
  }
  return out;
}

/// The decoder's first token: decoder_start_token_id of the first config that has it, else bos_token_id, as
/// Transformers.
std::optional<std::int32_t> read_decoder_start(std::initializer_list<const models::ConfigReader*> configs) {
  for (const models::ConfigReader* fields : configs) {
    if (!fields->has({"decoder_start_token_id"})) continue;
    return static_cast<std::int32_t>(fields->integer({"decoder_start_token_id"}, 0, kMaxId));
  }
  for (const models::ConfigReader* fields : configs) {
    const Json* bos = fields->find({"bos_token_id"});
    // Decoders may hold anything here; only encoder-decoders look at it.
    if (bos == nullptr || !bos->is_integer()) continue;
    const std::int64_t id = bos->integer("");
    if (id >= 0 && id <= kMaxId) return static_cast<std::int32_t>(id);
  }
  return std::nullopt;
}

SamplingOptions read_sampling(const models::ConfigReader& fields) {
  SamplingOptions s;
  s.do_sample = fields.boolean({"do_sample"}, false);
  s.temperature = fields.number({"temperature"}, 0, 1e6, 1.0);
  s.top_k = fields.integer({"top_k"}, 0, kMaxId, s.do_sample ? 50 : 0);  // 50 is Transformers' default
  s.top_p = fields.number({"top_p"}, 0, 1, 1.0);
  if (s.top_p == 0) s.top_p = std::numeric_limits<double>::min();  // only the most likely
  s.min_p = fields.number({"min_p"}, 0, 1, 0.0);
  s.repetition_penalty = fields.number({"repetition_penalty"}, 1e-6, 1e6, 1.0);
  return s;
}

/// Text of the answer as it grows: decoded, stop strings held back.
class TextStream {
 public:
  TextStream(std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> prompt,
             const std::vector<std::string>& stop)
      : filter_(stop) {
    if (!tokenizer) return;
    vocab_ = tokenizer->vocab_size();
    decoder_ = std::make_unique<StreamDecoder>(std::move(tokenizer));
    // The answer's first word keeps its leading space only if the decoder knows that something came before it.
    constexpr std::size_t kContext = 8;
    for (const std::int32_t id : prompt.last(std::min(prompt.size(), kContext))) decode(id);
  }
  std::string push(std::int32_t id) { return decoder_ ? filter_.push(decode(id)) : std::string(); }
  std::string finish() {
    if (!decoder_ || filter_.stopped()) return {};
    std::string text = filter_.push(decoder_->finish());
    return text + filter_.finish();
  }
  bool stopped() const { return filter_.stopped(); }

 private:
  /// A model's vocabulary may be padded beyond the tokenizer's: such ids have no text.
  std::string decode(std::int32_t id) { return id < vocab_ ? decoder_->push(id) : std::string(); }
  std::int64_t vocab_ = 0;
  std::unique_ptr<StreamDecoder> decoder_;
  StopFilter filter_;
};

class OpenSequence {
 public:
  explicit OpenSequence(Model& model) : model_(model), number_(model.open_sequence()) {}
  ~OpenSequence() { model_.close_sequence(number_); }
  OpenSequence(const OpenSequence&) = delete;
  OpenSequence& operator=(const OpenSequence&) = delete;
  std::int64_t number() const { return number_; }

 private:
  Model& model_;
  std::int64_t number_;
};

void check_prompt(const Model& model, std::span<const std::int32_t> prompt) {
  if (prompt.empty()) throw bad_input("the prompt has no tokens");
  const std::int64_t context = model.info().context_length;
  if (context > 0 && static_cast<std::int64_t>(prompt.size()) > context) {
    throw bad_input("the prompt has ", prompt.size(), " tokens, but the context holds ", context);
  }
}

/// Computes the prompt as far as it comes before the first token: an encoder-decoder's encoder reads it, and its
/// decoder begins anew. Gives the ids that the next pass computes.
std::vector<std::int32_t> begin_answer(Model& model, std::int64_t sequence, std::span<const std::int32_t> prompt,
                                       const GenerateOptions& options, Exec& exec) {
  if (!model.info().encoder_decoder) return {prompt.begin(), prompt.end()};
  if (!options.decoder_start) {
    throw bad_input(model.info().architecture, " needs decoder_start_token_id, which neither generation_config.json ",
                    "nor config.json has");
  }
  if (*options.decoder_start < 0 || *options.decoder_start >= model.info().vocab_size) {
    throw bad_input("decoder_start_token_id ", *options.decoder_start, " is outside the model's vocabulary of ",
                    model.info().vocab_size);
  }
  model.encode(sequence, prompt, exec);
  return {*options.decoder_start};
}

}  // namespace

StopFilter::StopFilter(std::vector<std::string> stop) : stop_(std::move(stop)) {
  std::erase_if(stop_, [](const std::string& text) { return text.empty(); });
}

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  std::size_t found = std::string::npos;
  for (const std::string& stop : stop_) found = std::min(found, held_.find(stop));
  if (found != std::string::npos) {
    stopped_ = true;
    held_.resize(found);
    return std::move(held_);
  }
  // Keep the longest end that a stop string begins with.
  std::size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopFilter::finish() { return stopped_ ? std::string() : std::move(held_); }

GenerateOptions default_generate_options(const Checkpoint& checkpoint) {
  GenerateOptions options;
  const std::filesystem::path file = checkpoint.folder() / "generation_config.json";
  const Json none = Json::Object{};
  const Json own = std::filesystem::exists(file) ? Json::read(file, 1 << 24) : none;
  if (!own.is_object()) throw bad_input(file.string(), ": expected a JSON object");
  const std::string config_file = (checkpoint.folder() / "config.json").string();
  const models::ConfigReader fields(own, file.string());
  const models::ConfigReader model_fields(checkpoint.config(), config_file);
  options.sampling = read_sampling(own == none ? model_fields : fields);
  options.eos_ids = read_eos(fields);
  if (options.eos_ids.empty()) options.eos_ids = read_eos(model_fields);
  options.decoder_start = read_decoder_start({&fields, &model_fields});
  options.max_new_tokens = fields.integer({"max_new_tokens"}, 0, kMaxId, 0);
  return options;
}

Generated generate(Model& model, std::shared_ptr<const Tokenizer> tokenizer, std::span<const std::int32_t> prompt,
                   const GenerateOptions& options, Exec& exec, const TokenCallback& on_token) {
  check_prompt(model, prompt);
  if (!tokenizer && !options.stop.empty()) throw bad_input("stop strings need a tokenizer");
  Sampler sampler(options.sampling);
  // An encoder-decoder's answer is a text of its own.
  const std::span<const std::int32_t> before = model.info().encoder_decoder ? prompt.first(0) : prompt;
  TextStream stream(std::move(tokenizer), before, options.stop);
  const OpenSequence sequence(model);
  const std::int64_t context = model.info().context_length;

  Generated out;
  out.prompt_tokens = static_cast<std::int64_t>(prompt.size());
  Stopwatch watch;
  std::vector<std::int32_t> seen = begin_answer(model, sequence.number(), prompt, options, exec);
  std::vector<float> logits;
  std::span<const std::int32_t> fresh = seen;
  for (bool done = false; !done;) {
    const BatchItem item{sequence.number(), fresh, false, 0};
    model.forward({&item, 1}, logits, exec);
    const std::int32_t id = sampler.next(logits, seen);
    if (out.ids.empty()) {
      out.prompt_seconds = watch.seconds();
      watch = {};
    }
    seen.push_back(id);
    out.ids.push_back(id);
    const std::string text = stream.push(id);
    out.text += text;
    const bool more = !on_token || on_token(id, text);
    const auto stop = [&](StopReason reason) {
      out.reason = reason;
      done = true;
    };
    if (!more) {
      stop(StopReason::caller);
    } else if (std::find(options.eos_ids.begin(), options.eos_ids.end(), id) != options.eos_ids.end()) {
      stop(StopReason::eos);
    } else if (stream.stopped()) {
      stop(StopReason::stop_text);
    } else if (static_cast<std::int64_t>(out.ids.size()) == options.max_new_tokens) {
      stop(StopReason::length);
    } else if (context > 0 && static_cast<std::int64_t>(seen.size()) > context) {
      stop(StopReason::context);
    }
    fresh = std::span(seen).last(1);
  }
  out.generate_seconds = watch.seconds();
  const std::string rest = stream.finish();
  out.text += rest;
  if (!rest.empty() && on_token) on_token(-1, rest);
  return out;
}

}  // namespace nibble
