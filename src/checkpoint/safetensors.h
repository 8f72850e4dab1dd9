// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON
// header {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__": {string: string}}, padded with
// spaces, then the tensors' bytes, which must tile the rest of the file without hole or overlap.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"

namespace nibble {

/// Limit of the reference implementation on the header's length.
constexpr std::int64_t kMaxSafetensorsHeader = 100'000'000;

struct SafetensorsContent {
  std::vector<TensorEntry> tensors;  ///< in the header's order; the views point into the mapping
  Json metadata;                     ///< the strings of __metadata__, or null
};

/// Checks the whole header against the file's real size. Legal oddities are accepted (misaligned or unsorted tensors,
/// spaces around the header, unknown fields, an empty name); a repeated name and a BOOL byte other than 0 and 1 are
/// not, since two readers would see two models. Throws Error(bad_input, "<file>: tensor "<name>": <reason>").
SafetensorsContent read_safetensors(const MappedFile& file);

/// The bytes before the data as the reference implementation (0.8) writes them, and where each tensor lies.
struct SafetensorsHeader {
  std::string bytes;                  ///< length, JSON and padding to a multiple of 8
  std::vector<std::int64_t> offsets;  ///< of plan[i], counted from the end of `bytes`
  std::int64_t data_bytes = 0;
};

/// Tensors are laid out by dtype (widest first, in the order of the reference's enumeration), then by name.
/// `metadata`: an object of strings; null or empty leaves it out.
SafetensorsHeader make_safetensors_header(std::span<const TensorPlan> plan, const Json& metadata);

}  // namespace nibble
