#include "calib/dataset.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace nibble {
namespace {

using Ids = std::vector<std::int32_t>;

Ids ids_of(const Json& row, const std::string& where) {
  Ids ids;
  for (const Json& value : row.array(where)) {
    const std::int64_t id = value.integer(where);
    if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) throw bad_input(where, ": ", id, " is no token id");
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

/// Collects sequences until there are enough.
class Collector {
 public:
  explicit Collector(const DatasetOptions& options) : options_(options) {}
  bool full() const { return static_cast<std::int64_t>(sequences_.size()) >= options_.samples; }

  /// One sequence; what is longer than seqlen is cut off.
  void add(Ids ids) {
    if (ids.empty() || full()) return;
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(options_.seqlen)));
    sequences_.push_back(std::move(ids));
  }

  /// Consecutive sequences; a short rest is dropped unless it is all there is.
  void add_pieces(const Ids& ids) {
    const auto length = static_cast<std::size_t>(options_.seqlen);
    if (ids.size() < length) return add(ids);
    for (std::size_t at = 0; at + length <= ids.size() && !full(); at += length) {
      add(Ids(ids.begin() + static_cast<std::ptrdiff_t>(at), ids.begin() + static_cast<std::ptrdiff_t>(at + length)));
    }
  }

  std::vector<Ids> take() { return std::move(sequences_); }

 private:
  const DatasetOptions& options_;
  std::vector<Ids> sequences_;
};

void read_ids(const std::filesystem::path& file, Collector& out) {
  const Json json = Json::read(file);
  const Json* rows = json.get("ids");
  if (rows == nullptr) throw bad_input(file.string(), ": no field \"ids\"");
  const std::string where = file.string() + ": ids";
  for (const Json& row : rows->array(where)) {
    if (out.full()) return;
    out.add(ids_of(row, where));
  }
}

void read_rows(const std::filesystem::path& file, const Tokenizer& tokenizer, Collector& out) {
  const std::string content = read_file(file);
  std::size_t number = 1;
  for (std::size_t at = 0; at < content.size() && !out.full(); ++number) {
    const std::size_t end = std::min(content.find('\n', at), content.size());
    const std::string line = content.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = cat(file.string(), ":", number);
    const Json row = Json::parse(line, where);
    const Json* text = row.get("text");
    if (text == nullptr) throw bad_input(where, ": no field \"text\"");
    out.add(tokenizer.encode(text->string(where + ": text")));
  }
}

}  // namespace

std::vector<std::vector<std::int32_t>> read_dataset(const std::filesystem::path& file,
                                                    const std::filesystem::path& model_folder,
                                                    const DatasetOptions& options) {
  Collector out(options);
  if (file.extension() == ".json") {
    read_ids(file, out);
  } else if (file.extension() == ".jsonl") {
    read_rows(file, *Tokenizer::open(model_folder), out);
  } else {
    const std::string text = read_file(file);
    out.add_pieces(Tokenizer::open(model_folder)->encode(text));
  }
  std::vector<Ids> sequences = out.take();
  if (sequences.empty()) throw bad_input(file.string(), ": holds no tokens to calibrate on");
  return sequences;
}

}  // namespace nibble
