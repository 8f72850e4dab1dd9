// The quantization config of a checkpoint, wherever its writer put it: quantize_config.json or quant_config.json
// (AutoGPTQ, GPTQModel, old AutoAWQ), config.json's quantization_config (Transformers). Where two files give the same
// key, they must agree.
#pragma once
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace nibble {

/// Synonyms of one key, best first.
using Keys = std::initializer_list<std::string_view>;

class QuantConfig {
 public:
  struct Source {
    std::string where;  ///< "/models/x/quantize_config.json", "/models/x/config.json: quantization_config"
    Json json;          ///< an object
  };
  struct Found {
    const Json* value = nullptr;  ///< never null JSON
    std::string where;            ///< source and key, for messages
  };

  /// Reads the files that are there, the writer's own first. Throws Error(bad_input) when one is no JSON object.
  explicit QuantConfig(const Checkpoint& checkpoint);

  const std::vector<Source>& sources() const { return sources_; }

  /// "gptq", "awq", ... in lower case; when no file names a method: "awq" or "gptq" by the keys that only they have;
  /// empty when there is no config.
  std::string method() const;

  /// The first source's value of the first key that is present and not null.
  std::optional<Found> find(Keys keys) const;

  /// Typed values; absent: nullopt. Throws Error(bad_input) for another type, or when two sources disagree.
  std::optional<std::int64_t> integer(Keys keys) const;
  std::optional<bool> boolean(Keys keys) const;
  std::optional<std::string> text(Keys keys) const;  ///< in lower case

 private:
  template <class T, class Read>
  std::optional<T> agreed(Keys keys, Read&& read) const;
  std::vector<Source> sources_;
};

/// ASCII letters in lower case.
std::string lower_case(std::string_view text);

}  // namespace nibble
