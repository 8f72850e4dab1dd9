#include "calib/dataset.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "calib/builtin_text.h"
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

/// Names that people give to data sets, and what their training text is called in the folders they come in.
struct KnownDataset {
  std::string_view name;
  std::array<const char*, 4> files;
};
constexpr std::array<KnownDataset, 4> kKnown{{
    {"c4", {"c4-train.00000-of-01024.json", "en/c4-train.00000-of-01024.json", "c4.jsonl", "c4.txt"}},
    {"c4-new", {"c4-train.00000-of-01024.json", "en/c4-train.00000-of-01024.json", "c4.jsonl", "c4.txt"}},
    {"wikitext2", {"wiki.train.raw", "wiki.train.tokens", "wikitext2.txt", "train.txt"}},
    {"ptb", {"ptb.train.txt", "ptb.jsonl", "ptb.txt", "train.txt"}},
}};

const KnownDataset* known(const std::string& name) {
  const auto found = std::find_if(kKnown.begin(), kKnown.end(), [&](const auto& set) { return set.name == name; });
  return found == kKnown.end() ? nullptr : &*found;
}

/// The file of a named data set at `path`.
std::filesystem::path file_of(const KnownDataset& set, const std::filesystem::path& path) {
  std::error_code failed;
  if (path.empty()) {
    throw bad_input("data set ", set.name, " is not downloaded: name the file or folder where its text lies (",
                    set.files[0], ", or any .txt or .jsonl) with --dataset-path, or use --dataset builtin");
  }
  if (std::filesystem::is_regular_file(path, failed)) return path;
  for (const char* file : set.files) {
    if (std::filesystem::is_regular_file(path / file, failed)) return path / file;
  }
  throw bad_input(path.string(), ": no text of data set ", set.name, " there (", set.files[0], ", ", set.files[1], ", ",
                  set.files[2], " or ", set.files[3], ")");
}

/// One sequence per sample: the pieces in an order of its own, as many as fill it.
void add_builtin(const Tokenizer& tokenizer, const DatasetOptions& options, Collector& out) {
  std::vector<std::string_view> pieces(kBuiltinText.begin(), kBuiltinText.end());
  Rng rng(20240229);
  while (!out.full()) {
    Ids ids;
    std::string text;
    for (std::size_t at = 0; static_cast<std::int64_t>(ids.size()) < options.seqlen; at = (at + 1) % pieces.size()) {
      if (at == 0) {
        for (std::size_t i = pieces.size() - 1; i > 0; --i) std::swap(pieces[i], pieces[rng.next() % (i + 1)]);
      }
      text.append(pieces[at]).append("\n\n");
      if (at % 4 == 3) ids = tokenizer.encode(text);
    }
    out.add(std::move(ids));
  }
}

}  // namespace

bool is_dataset_name(const std::string& name) { return name == "builtin" || known(name) != nullptr; }

std::vector<std::vector<std::int32_t>> calibration_sequences(const std::string& name, const std::filesystem::path& path,
                                                             const std::filesystem::path& model_folder,
                                                             const DatasetOptions& options) {
  if (name != "builtin" && known(name) == nullptr) return read_dataset(name, model_folder, options);
  Collector out(options);
  const auto tokenizer = Tokenizer::open(model_folder);
  if (name == "builtin") {
    add_builtin(*tokenizer, options, out);
    return out.take();
  }
  const std::filesystem::path file = file_of(*known(name), path);
  if (file.extension() == ".json" || file.extension() == ".jsonl") {
    read_rows(file, *tokenizer, out);
  } else {
    out.add_pieces(tokenizer->encode(read_file(file)));
  }
  std::vector<Ids> sequences = out.take();
  if (sequences.empty()) throw bad_input(file.string(), ": holds no tokens to calibrate on");
  return sequences;
}

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

std::int64_t token_count(const std::vector<std::vector<std::int32_t>>& sequences) {
  std::int64_t tokens = 0;
  for (const auto& ids : sequences) tokens += static_cast<std::int64_t>(ids.size());
  return tokens;
}

}  // namespace nibble
