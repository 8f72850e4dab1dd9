#include "text/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "text/model.h"

namespace nibble::text {
namespace {

constexpr std::int64_t kMaxConfigBytes = std::int64_t{256} << 20;

std::optional<Json> read_if_there(const std::filesystem::path& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  return Json::read(file, kMaxConfigBytes);
}

std::optional<bool> optional_flag(const Json& json, const char* key, const std::string& where) {
  if (json.get(key) == nullptr) return std::nullopt;
  return read_flag(json, key, false, where);
}

void remember(TokenizerConfig& config, const AddedToken& token) {
  const auto same = [&](const AddedToken& other) { return other.content == token.content; };
  if (!token.content.empty() && std::none_of(config.specials.begin(), config.specials.end(), same)) {
    config.specials.push_back(token);
  }
}

/// Named special tokens ("bos_token": "<s>" or {"content": "<s>", ...}) and lists of further ones.
void read_specials(const Json& json, const std::string& where, TokenizerConfig& config) {
  const auto named = [&](const char* key) -> std::optional<AddedToken> {
    const Json* found = json.get(key);
    if (found == nullptr) return std::nullopt;
    AddedToken token = read_added_token(*found, where + "." + key);
    token.special = true;
    remember(config, token);
    return token;
  };
  const auto keep = [](std::optional<AddedToken>& slot, std::optional<AddedToken> found) {
    if (!slot) slot = std::move(found);
  };
  keep(config.bos, named("bos_token"));
  keep(config.eos, named("eos_token"));
  keep(config.unk, named("unk_token"));
  for (const char* key : {"sep_token", "pad_token", "cls_token", "mask_token"}) named(key);
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const Json* list = json.get(key);
    if (list == nullptr || !list->is_array()) continue;
    for (const Json& item : list->array(where)) {
      AddedToken token = read_added_token(item, where + "." + key);
      token.special = true;
      remember(config, token);
    }
  }
}

void read_added(const Json& json, const std::string& where, TokenizerConfig& config) {
  const Json* table = json.get("added_tokens_decoder");
  if (table == nullptr) return;
  for (const auto& [key, value] : table->object(where + ".added_tokens_decoder")) {
    std::int64_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0) {
      throw bad_input(where, ".added_tokens_decoder: \"", printable(key), "\" is not an id");
    }
    config.added.emplace_back(id, read_added_token(value, where + ".added_tokens_decoder." + printable(key)));
  }
  std::stable_sort(config.added.begin(), config.added.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
}

/// bos_token_id and the like: a number, or a list of them whose first counts.
std::optional<std::int64_t> read_model_id(const Json& json, const char* key) {
  const Json* found = json.get(key);
  if (found != nullptr && found->is_array() && !found->array(key).empty()) found = &found->array(key)[0];
  if (found == nullptr || !found->is_integer()) return std::nullopt;
  return found->integer(key);
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::filesystem::path file = folder / name;
    const std::optional<Json> json = read_if_there(file);
    if (!json) continue;
    const std::string where = file.string();
    json->object(where);
    read_specials(*json, where, config);
    read_added(*json, where, config);
    if (config.tokenizer_class.empty()) config.tokenizer_class = read_text(*json, "tokenizer_class", "", where);
    if (!config.add_bos) config.add_bos = optional_flag(*json, "add_bos_token", where);
    if (!config.add_eos) config.add_eos = optional_flag(*json, "add_eos_token", where);
    if (!config.legacy) config.legacy = optional_flag(*json, "legacy", where);
    if (!config.add_prefix_space) config.add_prefix_space = optional_flag(*json, "add_prefix_space", where);
  }
  const std::filesystem::path model = folder / "config.json";
  if (const std::optional<Json> json = read_if_there(model)) {
    config.model_bos_id = read_model_id(*json, "bos_token_id");
    config.model_eos_id = read_model_id(*json, "eos_token_id");
  }
  return config;
}

}  // namespace nibble::text
