#include "text/post_processor.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "text/model.h"

namespace nibble::text {
namespace {

constexpr std::size_t kMaxItems = 4096;

std::int32_t read_id(const Json& json, const std::string& where) {
  const std::int64_t id = json.integer(where);
  if (id < 0 || id >= std::numeric_limits<std::int32_t>::max()) throw bad_input(where, ": id ", id, " is out of range");
  return static_cast<std::int32_t>(id);
}

/// The id of a ["token", id] pair.
std::int32_t read_pair(const Json& json, const char* key, const std::string& where) {
  const std::string here = where + "." + key;
  const Json* found = json.get(key);
  if (found == nullptr) throw bad_input(here, ": missing");
  const Json::Array& pair = found->array(here);
  if (pair.size() != 2) throw bad_input(here, ": not a [token, id] pair");
  return read_id(pair[1], here);
}

/// Appends the ids of a special token of a template.
void append_special(const Json& json, const std::string& name, const std::string& where,
                    std::vector<std::int32_t>& items) {
  const Json* table = json.get("special_tokens");
  const Json* entry = table == nullptr ? nullptr : table->get(name);
  const Json* ids = entry == nullptr ? nullptr : entry->get("ids");
  if (ids == nullptr) throw bad_input(where, ": special token \"", printable(name), "\" is not in special_tokens");
  for (const Json& id : ids->array(where + ".special_tokens.ids")) {
    items.push_back(read_id(id, where + ".special_tokens.ids"));
  }
}

}  // namespace

PostProcessor::PostProcessor(const Json* json, const std::string& where) {
  if (json != nullptr && !json->is_null()) add(*json, where);
}

PostProcessor::PostProcessor(const std::vector<std::int32_t>& before, const std::vector<std::int32_t>& after) {
  items_ = before;
  items_.push_back(kText);
  items_.insert(items_.end(), after.begin(), after.end());
}

/// Makes what there is so far the text of an outer template.
void PostProcessor::wrap(const std::vector<std::int32_t>& outer) {
  std::vector<std::int32_t> items;
  for (const std::int32_t id : outer) {
    if (id == kText) {
      items.insert(items.end(), items_.begin(), items_.end());
    } else {
      items.push_back(id);
    }
  }
  items_ = std::move(items);
}

void PostProcessor::add(const Json& json, const std::string& where) {
  const std::string type = read_text(json, "type", "", where);
  if (type == "ByteLevel") return;  // changes offsets only
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return wrap({read_pair(json, "cls", where), kText, read_pair(json, "sep", where)});
  }
  if (type == "Sequence") {
    const Json* list = json.get("processors");
    if (list == nullptr) throw bad_input(where, ": no processors");
    for (const Json& item : list->array(where + ".processors")) add(item, where);
    return;
  }
  if (type != "TemplateProcessing") {
    throw bad_input(where, ": unknown post_processor type \"", printable(type), "\"");
  }
  const Json* single = json.get("single");
  if (single == nullptr) throw bad_input(where, ": no single");
  std::vector<std::int32_t> items;
  for (const Json& item : single->array(where + ".single")) {
    if (const Json* special = item.get("SpecialToken")) {
      append_special(json, read_text(*special, "id", "", where), where, items);
    } else if (const Json* sequence = item.get("Sequence")) {
      if (read_text(*sequence, "id", "A", where) != "A") throw bad_input(where, ".single: a sequence other than A");
      items.push_back(kText);
    } else {
      throw bad_input(where, ".single: an item is neither SpecialToken nor Sequence");
    }
  }
  if (items.size() > kMaxItems || std::count(items.begin(), items.end(), kText) > 1) {
    throw bad_input(where, ".single: ", items.size(), " items; at most ", kMaxItems,
                    " with the text once are supported");
  }
  wrap(items);
}

std::vector<std::int32_t> PostProcessor::apply(std::vector<std::int32_t> ids) const {
  if (items_.size() == 1 && items_[0] == kText) return ids;
  std::vector<std::int32_t> out;
  out.reserve(ids.size() + items_.size());
  for (const std::int32_t item : items_) {
    if (item == kText) {
      out.insert(out.end(), ids.begin(), ids.end());
    } else {
      out.push_back(item);
    }
  }
  return out;
}

std::optional<std::int32_t> PostProcessor::first() const {
  if (items_.empty() || items_[0] == kText) return std::nullopt;
  return items_[0];
}

}  // namespace nibble::text
