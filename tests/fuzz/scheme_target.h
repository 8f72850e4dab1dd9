// Fuzzed bytes as a checkpoint in memory, for the loader of one scheme:
//
//   {"quantization_config": {...}}                  config.json, one line
//   {"bits": 4, ...}                                quantize_config.json, or an empty line
//   model.layers.0.q.qweight i32 16 32              one line per tensor: name, dtype, shape
//                                                   an empty line
//   ...                                             the tensors' bytes, end to end; what is missing is zero
//
// A tensor's size follows from its line, so a mutated shape reaches the checks of the scheme instead of those of a
// file.
#pragma once
#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>
#include <string_view>

#include "fuzz/fuzz_file.h"
#include "quant/scheme.h"

namespace nibble::fuzz {

inline constexpr std::int64_t kMaxTensorBytes = 1 << 20;

/// The text before the next line break (or the end), taken off.
inline std::string_view next_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

struct TensorLine {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t bytes = 0;
};

/// False when the line is no tensor of a bearable size.
inline bool parse_tensor(std::string_view line, TensorLine& tensor) {
  std::size_t field = 0;
  std::int64_t count = 1;
  while (!line.empty()) {
    const std::size_t end = std::min(line.find(' '), line.size());
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(std::min(end + 1, line.size()));
    if (field == 0) {
      tensor.name = word;
    } else if (field == 1) {
      const std::optional<DType> dtype = dtype_from_name(word);
      if (!dtype) return false;
      tensor.dtype = *dtype;
    } else {
      std::int64_t dim = 0;
      const auto result = std::from_chars(word.data(), word.data() + word.size(), dim);
      if (result.ec != std::errc() || dim < 0 || dim > kMaxTensorBytes || tensor.shape.size() == 8) return false;
      count *= dim;
      if (count > kMaxTensorBytes) return false;
      tensor.shape.push_back(dim);
    }
    ++field;
  }
  tensor.bytes = count * static_cast<std::int64_t>(size_of(tensor.dtype));
  return field >= 2 && tensor.bytes <= kMaxTensorBytes;
}

inline std::shared_ptr<const Checkpoint> checkpoint_of(std::string_view text) {
  CheckpointParts parts;
  parts.folder = "/fuzz";
  parts.config = Json::parse(next_line(text), "config.json");
  if (const std::string_view own = next_line(text); !own.empty())
    parts.files["quantize_config.json"] = std::string(own);
  std::vector<TensorLine> lines;
  std::set<std::string> names;
  std::int64_t total = 0;
  for (std::string_view line = next_line(text); !line.empty(); line = next_line(text)) {
    TensorLine tensor;
    if (!parse_tensor(line, tensor) || !names.insert(tensor.name).second) continue;
    if ((total += tensor.bytes) > kMaxTensorBytes || lines.size() == 64) break;
    lines.push_back(std::move(tensor));
  }
  const auto memory =
      std::make_shared<std::vector<std::byte>>(static_cast<std::size_t>(std::max<std::int64_t>(total, 1)));
  std::memcpy(memory->data(), text.data(), std::min(text.size(), memory->size()));
  std::int64_t at = 0;
  for (TensorLine& line : lines) {
    if (at + line.bytes > static_cast<std::int64_t>(memory->size())) break;
    parts.tensors.push_back(
        {line.name, View(memory->data() + at, line.shape, line.dtype), "/fuzz/model.safetensors", ""});
    at += line.bytes;
  }
  parts.owner = memory;
  return Checkpoint::in_memory(std::move(parts));
}

/// Opens the checkpoint, describes and loads every module, decodes its first and last rows and stores it again.
inline int try_scheme(const std::uint8_t* data, std::size_t size, std::string_view scheme_name) {
  static ThreadPool pool(1);
  static Arena arena;
  return expect_answer([&] {
    const auto checkpoint = checkpoint_of({reinterpret_cast<const char*>(data), size});
    const WeightStore store(checkpoint);
    if (store.scheme() == nullptr || store.scheme()->name != scheme_name) return;
    Exec exec{.target = Target::ref, .pool = pool, .arena = arena};
    const SchemeReader& reader = *store.reader();
    reader.notes();
    for (const std::string& module : reader.modules()) {
      reader.describe(module);
      reader.size(module);
      const LinearWeights linear = reader.load(module, {}, exec);
      const QTensor& w = linear.weight;
      if (w.rows * w.cols > kMaxTensorBytes * 8) continue;
      const std::int64_t rows = std::min<std::int64_t>(w.rows, 3);
      std::vector<float> values(static_cast<std::size_t>(rows * w.cols));
      for (const Target target : {Target::ref, Target::cpu}) {
        exec.target = target;
        decode(w, 0, rows, values.data(), exec);
        decode(w, w.rows - rows, rows, values.data(), exec);
      }
      if (store.scheme()->store != nullptr) store.scheme()->store(module, linear, exec);
    }
  });
}

}  // namespace nibble::fuzz
