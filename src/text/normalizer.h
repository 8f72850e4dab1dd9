// The "normalizer" section of tokenizer.json.
#pragma once
#include <memory>
#include <string>

#include "base/json.h"

namespace nibble::text {

/// A text under normalization, and whether its first character still stems from the beginning of what was given
/// (Metaspace with prepend_scheme "first" asks).
struct Normalized {
  std::string text;
  bool at_start = true;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(Normalized& text) const = 0;
};

/// nullptr for null. Throws Error(bad_input) beginning with `where` for an unknown type or a bad field.
std::unique_ptr<Normalizer> read_normalizer(const Json* json, const std::string& where);

}  // namespace nibble::text
