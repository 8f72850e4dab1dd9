// The "post_processor" section of tokenizer.json, for single sequences: which ids are put around (or between) the
// text's.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble::text {

class PostProcessor {
 public:
  /// The text alone.
  PostProcessor() = default;
  /// From the section, which may be null. Throws Error(bad_input) beginning with `where`.
  PostProcessor(const Json* json, const std::string& where);
  /// `before`, the text, `after`.
  PostProcessor(const std::vector<std::int32_t>& before, const std::vector<std::int32_t>& after);

  /// Puts `ids` of a text into the template.
  std::vector<std::int32_t> apply(std::vector<std::int32_t> ids) const;

  /// The id in front of the text; nullopt when the text comes first.
  std::optional<std::int32_t> first() const;

 private:
  static constexpr std::int32_t kText = -1;
  void wrap(const std::vector<std::int32_t>& outer);
  void add(const Json& json, const std::string& where);
  std::vector<std::int32_t> items_{kText};
};

}  // namespace nibble::text
