#include "cli/token_lists.h"

#include "base/error.h"
#include "base/json.h"

namespace nibble::cli {
namespace {

TokenLists lists_of(const Json& value, const std::string& where, const TokenLimits& limits) {
  TokenLists out;
  for (const Json& sequence : value.array(where)) {
    std::vector<std::int32_t>& ids = out.emplace_back();
    for (const Json& id : sequence.array(where)) {
      const std::int64_t number = id.integer(where);
      if (number < 0 || number >= limits.values) {
        throw bad_input(where, ": ", limits.noun, number, " is outside the model's ", limits.what, " of ",
                        limits.values);
      }
      ids.push_back(static_cast<std::int32_t>(number));
    }
    const auto count = static_cast<std::int64_t>(ids.size());
    if (count == 0) throw bad_input(where, ": sequence ", out.size() - 1, " is empty");
    if (limits.length > 0 && count > limits.length) {
      throw bad_input(where, ": sequence ", out.size() - 1, " has ", count, " tokens, but the context holds ",
                      limits.length);
    }
  }
  if (out.empty()) throw bad_input(where, " has no sequence");
  return out;
}

}  // namespace

std::optional<TokenLists> find_token_lists(const std::string& file, std::string_view field, const TokenLimits& limits) {
  const Json json = Json::read(file);
  const Json* list = json.get(field);
  if (list == nullptr) return std::nullopt;
  return lists_of(*list, cat(printable(file), ": field ", field), limits);
}

TokenLists read_token_lists(const std::string& file, std::string_view field, const TokenLimits& limits) {
  if (std::optional<TokenLists> found = find_token_lists(file, field, limits)) return std::move(*found);
  throw bad_input(printable(file), ": field ", field, R"( is missing; the file must be {")", field,
                  R"(": [[...], ...]})");
}

}  // namespace nibble::cli
